//! Settings of remote storage: the variables of KServe's storage initialiser mean the same here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::hub::home;
use super::{Arguments, Environment, UsageError, directory};

/// Where KServe mounts the bundle of certificate authorities by default.
const CA_MOUNT: &str = "/etc/ssl/custom-certs";
/// Where KServe mounts the secret of HDFS.
const HDFS_SECRET: &str = "/var/secrets/kserve-hdfscreds";
/// Where KServe mounts the configuration of registries.
const DOCKER_CONFIG: &str = "/mnt/oci-fetch-auth/config.json";
/// Ending of the variables that hold request headers of a host.
const HEADERS: &str = "-headers";
/// Keys of a `STORAGE_CONFIG` of type `s3` and the variables they stand for.
const S3_KEYS: &[(&str, &str)] = &[
    ("endpoint_url", "AWS_ENDPOINT_URL"),
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("region", "AWS_DEFAULT_REGION"),
    ("ca_bundle", "AWS_CA_BUNDLE"),
    ("verify_ssl", "S3_VERIFY_SSL"),
    ("anonymous", "awsAnonymousCredential"),
];
/// Sites of ModelScope.
const MODELSCOPE_SITES: [&str; 2] = ["https://modelscope.cn", "https://www.modelscope.ai"];
/// How containers and instances of AWS are told who they are.
pub(crate) const AWS_IDENTITY: &[&str] = &[
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} characters", self.0.chars().count())
    }
}

/// Where remote files are kept, which are wanted, and who we are to those who have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// Directory of downloads, one directory per address.
    pub cache: PathBuf,
    /// Only files that match one of these shell patterns; all when empty.
    pub allow: Vec<String>,
    /// No file that matches one of these.
    pub ignore: Vec<String>,
    /// Certificate authorities that are trusted beside those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// Type of a `STORAGE_CONFIG` that nothing was taken from.
    pub unused_type: Option<String>,
    /// Payloads are encrypted.
    pub confidential: bool,
    /// S3.
    pub s3: S3Settings,
    /// Google Cloud Storage.
    pub gs: GsSettings,
    /// Azure.
    pub azure: AzureSettings,
    /// HDFS.
    pub hdfs: HdfsSettings,
    /// ModelScope.
    pub modelscope: ModelScopeSettings,
    /// Git.
    pub git: GitSettings,
    /// Registries.
    pub oci: OciSettings,
    /// Request headers by host, each a JSON object (variables `<host>-headers`).
    pub headers: BTreeMap<String, Secret>,
}

/// Variables of S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: Option<Secret>,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: Option<Secret>,
    /// `AWS_SESSION_TOKEN`
    pub session_token: Option<Secret>,
    /// `AWS_ENDPOINT_URL`
    pub endpoint: Option<String>,
    /// `AWS_DEFAULT_REGION`, else `AWS_REGION`
    pub region: Option<String>,
    /// `AWS_CA_BUNDLE`
    pub ca_bundle: Option<PathBuf>,
    /// `S3_VERIFY_SSL`
    pub verify_ssl: bool,
    /// `S3_USER_VIRTUAL_BUCKET`
    pub virtual_bucket: bool,
    /// `S3_USE_ACCELERATE`
    pub accelerate: bool,
    /// `awsAnonymousCredential`
    pub anonymous: bool,
    /// `S3_CONNECT_TIMEOUT`
    pub connect_timeout: Duration,
    /// `S3_READ_TIMEOUT`
    pub read_timeout: Duration,
    /// `S3_MAX_ATTEMPTS`
    pub max_attempts: u32,
    /// `S3_MAX_FILE_CONCURRENCY`
    pub max_files: usize,
    /// Variables of web identities, containers and instances, by name.
    pub identity: BTreeMap<&'static str, String>,
}

/// Variables of Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GsSettings {
    /// `GOOGLE_APPLICATION_CREDENTIALS`
    pub credentials: Option<PathBuf>,
    /// `STORAGE_EMULATOR_HOST`
    pub emulator: Option<String>,
    /// `GCE_METADATA_HOST`
    pub metadata_host: Option<String>,
}

/// Variables of Azure; `AZ_...` wins over `AZURE_...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureSettings {
    /// `AZ_TENANT_ID`
    pub tenant_id: Option<String>,
    /// `AZ_CLIENT_ID`
    pub client_id: Option<String>,
    /// `AZ_CLIENT_SECRET`
    pub client_secret: Option<Secret>,
    /// `AZURE_STORAGE_ACCESS_KEY`
    pub access_key: Option<Secret>,
    /// `AZURE_FEDERATED_TOKEN_FILE`
    pub federated_token_file: Option<PathBuf>,
    /// `AZURE_AUTHORITY_HOST`
    pub authority_host: Option<String>,
    /// `IDENTITY_ENDPOINT`
    pub identity_endpoint: Option<String>,
    /// `AZURE_MAX_FILE_CONCURRENCY`
    pub max_files: usize,
}

/// The secret of HDFS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HdfsSettings {
    /// Directory of the mounted secret (`HDFS_SECRET_DIR`), one file a setting.
    pub secret_dir: PathBuf,
    /// Settings of a `STORAGE_CONFIG` of type `hdfs`, which take the place of the directory; the contents of files are base64.
    pub given: Option<BTreeMap<String, Secret>>,
}

/// Variables of ModelScope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelScopeSettings {
    /// `MODELSCOPE_API_TOKEN`
    pub token: Option<Secret>,
    /// Sites without slashes at their ends, in the order in which a model is looked for: `MODELSCOPE_ENDPOINT`, else
    /// `MODELSCOPE_DOMAIN`, else the public ones (`MODELSCOPE_PREFER_AI_SITE` turns them round).
    pub endpoints: Vec<String>,
}

/// Variables of Git.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSettings {
    /// `GIT_USERNAME`
    pub username: Option<String>,
    /// `GIT_PASSWORD`
    pub password: Option<Secret>,
}

/// Variables of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OciSettings {
    /// `KSERVE_OCI_DOCKER_CONFIG`; the file may be missing.
    pub docker_config: PathBuf,
    /// `KSERVE_OCI_INSECURE_REGISTRY`
    pub insecure: bool,
    /// Certificate authorities: of registries they need no `CA_BUNDLE_CONFIGMAP_NAME`.
    pub ca_bundle: Option<PathBuf>,
}

/// What nothing changed.
impl Default for S3Settings {
    fn default() -> Self {
        Self {
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            endpoint: None,
            region: None,
            ca_bundle: None,
            verify_ssl: true,
            virtual_bucket: false,
            accelerate: false,
            anonymous: false,
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(30),
            max_attempts: 3,
            max_files: 4,
            identity: BTreeMap::new(),
        }
    }
}

/// The environment, with what `STORAGE_CONFIG` says in front of it.
struct Variables<'a> {
    environment: &'a Environment,
    given: BTreeMap<&'static str, String>,
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        match self.given.get(name) {
            Some(value) => Some(value.trim()).filter(|value| !value.is_empty()),
            None => self.environment.get(name),
        }
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.owned(name).map(Secret)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Python's `value.lower() == "true"`.
    fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn whole(&self, name: &str, default: u32) -> Result<u32, UsageError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| UsageError(format!("{name}: {text:?} is not a whole number above 0")))
    }
}

pub(super) fn storage(
    arguments: &Arguments,
    environment: &Environment,
) -> Result<StorageConfig, UsageError> {
    let given = storage_spec(environment)?;
    let kind = given.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
    let mut variables = Variables { environment, given: BTreeMap::new() };
    let mut hdfs = HdfsSettings {
        secret_dir: directory(environment, "HDFS_SECRET_DIR").unwrap_or_else(|| HDFS_SECRET.into()),
        given: None,
    };
    match kind.as_str() {
        "s3" => {
            for (key, name) in S3_KEYS {
                if let Some(value) = given.get(*key) {
                    variables.given.insert(name, word(key, value)?);
                }
            }
        }
        "hdfs" | "webhdfs" => {
            let pair =
                |(key, value): (&String, &Json)| Ok((key.clone(), Secret(word(key, value)?)));
            hdfs.given = Some(given.iter().map(pair).collect::<Result<_, UsageError>>()?);
        }
        _ => {}
    }
    let taken = matches!(kind.as_str(), "" | "s3" | "hdfs" | "webhdfs");
    let mount = directory(environment, "CA_BUNDLE_VOLUME_MOUNT_POINT");
    let bundle = |mount: PathBuf| mount.join("cabundle.crt");
    let cache = arguments.text("download-dir").map(PathBuf::from);
    Ok(StorageConfig {
        cache: cache.unwrap_or_else(|| home(environment)).join("storage"),
        allow: patterns(environment, "STORAGE_ALLOW_PATTERNS"),
        ignore: patterns(environment, "STORAGE_IGNORE_PATTERNS"),
        ca_bundle: environment
            .get("CA_BUNDLE_CONFIGMAP_NAME")
            .map(|_| bundle(mount.clone().unwrap_or_else(|| CA_MOUNT.into()))),
        unused_type: (!taken).then_some(kind),
        confidential: environment.is_true("CONFIDENTIAL_ENABLED"),
        s3: s3(&variables)?,
        gs: GsSettings {
            credentials: directory(environment, "GOOGLE_APPLICATION_CREDENTIALS"),
            emulator: variables.owned("STORAGE_EMULATOR_HOST"),
            metadata_host: variables.owned("GCE_METADATA_HOST"),
        },
        azure: azure(&variables)?,
        hdfs,
        modelscope: modelscope(environment),
        git: GitSettings {
            username: variables.owned("GIT_USERNAME"),
            password: variables.secret("GIT_PASSWORD"),
        },
        oci: OciSettings {
            docker_config: directory(environment, "KSERVE_OCI_DOCKER_CONFIG")
                .unwrap_or_else(|| DOCKER_CONFIG.into()),
            insecure: environment.is_true("KSERVE_OCI_INSECURE_REGISTRY"),
            ca_bundle: mount.map(bundle),
        },
        headers: environment
            .ending_with(HEADERS)
            .map(|(host, value)| (host.to_ascii_lowercase(), Secret(value.to_owned())))
            .collect(),
    })
}

/// `STORAGE_CONFIG` with `STORAGE_OVERRIDE_CONFIG` over it.
fn storage_spec(environment: &Environment) -> Result<Map<String, Json>, UsageError> {
    let mut spec = Map::new();
    for name in ["STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"] {
        let Some(text) = environment.get(name) else { continue };
        // The text is a secret: an error says where it is wrong, not what stands there.
        let object: Map<String, Json> = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            UsageError(format!(
                "{name}: expected a JSON object with a \"type\" (line {line}, column {column})"
            ))
        })?;
        spec.extend(object);
    }
    Ok(spec)
}

/// A value of `STORAGE_CONFIG`.
fn word(key: &str, value: &Json) -> Result<String, UsageError> {
    match value {
        Json::String(text) => Ok(text.clone()),
        Json::Bool(_) | Json::Number(_) => Ok(value.to_string()),
        _ => Err(UsageError(format!("STORAGE_CONFIG: {key}: expected a string"))),
    }
}

fn s3(variables: &Variables<'_>) -> Result<S3Settings, UsageError> {
    let default = S3Settings::default();
    let seconds = |name, default: Duration| {
        let seconds = variables.whole(name, u32::try_from(default.as_secs()).unwrap_or(u32::MAX));
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    };
    let off = |value: &str| matches!(value.to_ascii_lowercase().as_str(), "0" | "false");
    Ok(S3Settings {
        access_key_id: variables.secret("AWS_ACCESS_KEY_ID"),
        secret_access_key: variables.secret("AWS_SECRET_ACCESS_KEY"),
        session_token: variables.secret("AWS_SESSION_TOKEN"),
        endpoint: variables.owned("AWS_ENDPOINT_URL"),
        region: variables.owned("AWS_DEFAULT_REGION").or_else(|| variables.owned("AWS_REGION")),
        ca_bundle: variables.path("AWS_CA_BUNDLE"),
        verify_ssl: !variables.get("S3_VERIFY_SSL").is_some_and(off),
        virtual_bucket: variables.is_true("S3_USER_VIRTUAL_BUCKET"),
        accelerate: variables.is_true("S3_USE_ACCELERATE"),
        anonymous: variables.is_true("awsAnonymousCredential"),
        connect_timeout: seconds("S3_CONNECT_TIMEOUT", default.connect_timeout)?,
        read_timeout: seconds("S3_READ_TIMEOUT", default.read_timeout)?,
        max_attempts: variables.whole("S3_MAX_ATTEMPTS", default.max_attempts)?,
        max_files: variables.whole("S3_MAX_FILE_CONCURRENCY", 4)? as usize,
        identity: AWS_IDENTITY
            .iter()
            .filter_map(|name| Some((*name, variables.owned(name)?)))
            .collect(),
    })
}

fn azure(variables: &Variables<'_>) -> Result<AzureSettings, UsageError> {
    let either = |name: &str| {
        variables.owned(&format!("AZ_{name}")).or_else(|| variables.owned(&format!("AZURE_{name}")))
    };
    Ok(AzureSettings {
        tenant_id: either("TENANT_ID"),
        client_id: either("CLIENT_ID"),
        client_secret: either("CLIENT_SECRET").map(Secret),
        access_key: variables.secret("AZURE_STORAGE_ACCESS_KEY"),
        federated_token_file: variables.path("AZURE_FEDERATED_TOKEN_FILE"),
        authority_host: variables.owned("AZURE_AUTHORITY_HOST"),
        identity_endpoint: variables.owned("IDENTITY_ENDPOINT"),
        max_files: variables.whole("AZURE_MAX_FILE_CONCURRENCY", 4)? as usize,
    })
}

fn modelscope(environment: &Environment) -> ModelScopeSettings {
    let given = environment.first(&["MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"]);
    let mut endpoints: Vec<String> = match given {
        Some((_, site)) => vec![site.to_owned()],
        None => MODELSCOPE_SITES.map(str::to_owned).into(),
    };
    if environment.is_true("MODELSCOPE_PREFER_AI_SITE") {
        endpoints.reverse();
    }
    for site in &mut endpoints {
        let lower = site.to_ascii_lowercase();
        let scheme = if lower.starts_with("http://") || lower.starts_with("https://") {
            ""
        } else {
            "https://"
        };
        *site = format!("{scheme}{}", site.trim_end_matches('/'));
    }
    let token = environment.get("MODELSCOPE_API_TOKEN").map(|token| Secret(token.to_owned()));
    ModelScopeSettings { token, endpoints }
}

/// Shell patterns: a JSON list, or words between commas.
pub(super) fn patterns(environment: &Environment, name: &str) -> Vec<String> {
    let Some(text) = environment.get(name) else { return Vec::new() };
    let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words: Vec<String> = match serde_json::from_str(text) {
        Ok(Json::Array(values)) => values.iter().map(plain).collect(),
        Ok(value) => vec![plain(&value)],
        Err(_) => text.split(',').map(str::to_owned).collect(),
    };
    let trimmed = words.iter().map(|word| word.trim().to_owned());
    trimmed.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<StorageConfig, String> {
        let arguments = Arguments::read(Vec::new()).expect("no words");
        let environment = Environment::of(variables.iter().copied());
        storage(&arguments, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn every_variable_is_read() {
        let nothing = format!("{:?}", config(&[]).unwrap());
        for (name, value) in [
            ("STORAGE_ALLOW_PATTERNS", "*.json"),
            ("STORAGE_IGNORE_PATTERNS", "[\"*.bin\"]"),
            ("CA_BUNDLE_CONFIGMAP_NAME", "bundle"),
            ("CA_BUNDLE_VOLUME_MOUNT_POINT", "/certs"),
            ("CONFIDENTIAL_ENABLED", "true"),
            ("HDFS_SECRET_DIR", "/secret"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "key"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_ENDPOINT_URL", "http://localhost:9000"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_CA_BUNDLE", "/ca.pem"),
            ("AWS_ROLE_ARN", "arn"),
            ("S3_VERIFY_SSL", "False"),
            ("S3_USER_VIRTUAL_BUCKET", "true"),
            ("S3_USE_ACCELERATE", "True"),
            ("awsAnonymousCredential", "TRUE"),
            ("S3_CONNECT_TIMEOUT", "1"),
            ("S3_READ_TIMEOUT", "2"),
            ("S3_MAX_ATTEMPTS", "9"),
            ("S3_MAX_FILE_CONCURRENCY", "8"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/key.json"),
            ("STORAGE_EMULATOR_HOST", "http://localhost:1"),
            ("GCE_METADATA_HOST", "localhost:1"),
            ("AZ_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
            ("AZ_CLIENT_SECRET", "secret"),
            ("AZURE_STORAGE_ACCESS_KEY", "key"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
            ("AZURE_AUTHORITY_HOST", "https://login"),
            ("IDENTITY_ENDPOINT", "http://localhost:1"),
            ("AZURE_MAX_FILE_CONCURRENCY", "8"),
            ("MODELSCOPE_API_TOKEN", "token"),
            ("MODELSCOPE_ENDPOINT", "http://localhost:1"),
            ("MODELSCOPE_DOMAIN", "example.org"),
            ("MODELSCOPE_PREFER_AI_SITE", "true"),
            ("GIT_USERNAME", "me"),
            ("GIT_PASSWORD", "secret"),
            ("KSERVE_OCI_DOCKER_CONFIG", "/config.json"),
            ("KSERVE_OCI_INSECURE_REGISTRY", "1"),
            ("Example.org-headers", "{}"),
            ("STORAGE_CONFIG", "{\"type\":\"gs\"}"),
        ] {
            let config = config(&[(name, value)]).expect(name);
            assert_ne!(format!("{config:?}"), nothing, "{name}");
        }
    }

    #[test]
    fn the_storage_secret_wins_over_variables_and_its_override_over_it() {
        let secret =
            "{\"type\":\"s3\",\"access_key_id\":\"a\",\"region\":\"r\",\"verify_ssl\":\"0\"}";
        let config = config(&[
            ("AWS_ACCESS_KEY_ID", "other"),
            ("AWS_SECRET_ACCESS_KEY", "kept"),
            ("STORAGE_CONFIG", secret),
            ("STORAGE_OVERRIDE_CONFIG", "{\"region\":\"q\",\"anonymous\":\"True\"}"),
        ])
        .unwrap();
        let s3 = config.s3;
        assert_eq!(s3.access_key_id, Some(Secret("a".to_owned())));
        assert_eq!(s3.secret_access_key, Some(Secret("kept".to_owned())));
        assert_eq!(s3.region.as_deref(), Some("q"));
        assert!(!s3.verify_ssl && s3.anonymous);
        assert!(!format!("{s3:?}").contains("kept"));
    }

    #[test]
    fn hdfs_settings_come_from_the_secret() {
        let config = config(&[("STORAGE_CONFIG", "{\"type\":\"webhdfs\",\"N_THREADS\":\"3\"}")]);
        let given = config.unwrap().hdfs.given.unwrap();
        assert_eq!(given.get("N_THREADS"), Some(&Secret("3".to_owned())));
    }

    #[test]
    fn sites_of_modelscope() {
        fn sites(variables: &[(&str, &str)]) -> Vec<String> {
            config(variables).unwrap().modelscope.endpoints
        }
        assert_eq!(sites(&[]), MODELSCOPE_SITES);
        let ai = ("MODELSCOPE_PREFER_AI_SITE", "true");
        assert_eq!(sites(&[ai]), ["https://www.modelscope.ai", "https://modelscope.cn"]);
        let domain = ("MODELSCOPE_DOMAIN", "example.org/");
        assert_eq!(sites(&[domain, ai]), ["https://example.org"]);
        assert_eq!(sites(&[domain, ("MODELSCOPE_ENDPOINT", "http://h:1/")]), ["http://h:1"]);
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            ("STORAGE_CONFIG", "{\"type\":\"s3\",\"region\":[]}"),
            ("STORAGE_CONFIG", "secret"),
            ("STORAGE_OVERRIDE_CONFIG", "[\"secret\"]"),
            ("S3_MAX_ATTEMPTS", "many"),
            ("S3_READ_TIMEOUT", "0"),
            ("AZURE_MAX_FILE_CONCURRENCY", "-1"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) || error.contains("region"), "{name}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn patterns_are_a_list_or_words() {
        let read = |text| config(&[("STORAGE_ALLOW_PATTERNS", text)]).unwrap().allow;
        assert_eq!(read("[\"a\", \" b \", \"\"]"), ["a", "b"]);
        assert_eq!(read("*.json, *.bin,"), ["*.json", "*.bin"]);
        assert_eq!(read("\"x\""), ["x"]);
        assert_eq!(read("7"), ["7"]);
        assert_eq!(read(" "), Vec::<String>::new());
    }
}
