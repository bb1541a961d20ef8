//! The table of globals: every module and name that a pickle of a model may hold, and what it stands for.

use crate::error::Fault;

/// What a global stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    /// A class, or a function that restores one: calling it keeps class, arguments and state as an inert object.
    Inert,
    /// A type or function that models only refer to: calling it is refused.
    Token,
    /// numpy's `ndarray`.
    NdArray,
    /// numpy's `_reconstruct`: an array that its state fills.
    Reconstruct,
    /// numpy's `_mareconstruct`: a masked array that its state fills.
    MaskedReconstruct,
    /// numpy's `_frombuffer`: an array of bytes.
    FromBuffer,
    /// numpy's `scalar`: one element.
    Scalar,
    /// numpy's `dtype`.
    Dtype,
    /// numpy's `_ufunc_reconstruct`: a ufunc by its name.
    Ufunc,
    /// `_codecs.encode`: bytes that protocols 0 to 2 write as text.
    Encode,
    /// `bytes` and `bytearray`.
    Bytes,
    /// Lists, tuples, sets, queues.
    Sequence,
    /// Dictionaries.
    Mapping,
    /// `defaultdict`, whose first argument is a factory.
    DefaultDict,
    /// `copyreg._reconstructor`.
    Reconstructor,
    /// joblib's wrapper of an array, whose raw bytes follow.
    JoblibArray,
}

/// Names within one module.
struct Row {
    modules: &'static [&'static str],
    names: &'static [&'static str],
    symbol: Symbol,
}

const fn row(
    modules: &'static [&'static str],
    names: &'static [&'static str],
    symbol: Symbol,
) -> Row {
    Row { modules, names, symbol }
}

const MULTIARRAY: &[&str] = &["numpy.core.multiarray", "numpy._core.multiarray"];
const NUMERIC: &[&str] = &["numpy.core.numeric", "numpy._core.numeric"];
const UMATH: &[&str] =
    &["numpy", "numpy.core._multiarray_umath", "numpy._core._multiarray_umath", "numpy.core.umath"];
const MASKED: &[&str] = &["numpy.ma", "numpy.ma.core"];

/// numpy's element types.
const SCALAR_TYPES: &[&str] = &[
    "float16",
    "float32",
    "float64",
    "float128",
    "longdouble",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "intc",
    "intp",
    "longlong",
    "bool",
    "bool_",
    "str_",
    "bytes_",
    "object_",
    "complex64",
    "complex128",
    "void",
    "datetime64",
    "timedelta64",
];

/// numpy's functions of one array that transformers are made with.
const FUNCTIONS: &[&str] = &[
    "log",
    "log1p",
    "log2",
    "log10",
    "exp",
    "expm1",
    "exp2",
    "sqrt",
    "square",
    "cbrt",
    "abs",
    "absolute",
    "fabs",
    "sign",
    "sin",
    "cos",
    "tan",
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "arcsinh",
    "arccosh",
    "arctanh",
    "floor",
    "ceil",
    "rint",
    "trunc",
    "reciprocal",
    "negative",
    "positive",
    "deg2rad",
    "rad2deg",
    "radians",
    "degrees",
    "isnan",
    "isfinite",
    "mean",
    "median",
    "std",
    "var",
    "min",
    "max",
    "amin",
    "amax",
    "sum",
    "nan_to_num",
    "nanmean",
    "nanmedian",
];

const RANDOM: &[&str] = &[
    "__randomstate_ctor",
    "__generator_ctor",
    "__bit_generator_ctor",
    "RandomState",
    "Generator",
    "MT19937",
    "PCG64",
    "PCG64DXSM",
    "Philox",
    "SFC64",
    "SeedSequence",
    "__pyx_unpickle_SeedSequence",
];

/// Globals by their exact names.
const TABLE: &[Row] = &[
    row(MULTIARRAY, &["_reconstruct"], Symbol::Reconstruct),
    row(MULTIARRAY, &["scalar"], Symbol::Scalar),
    row(MULTIARRAY, &["_frombuffer"], Symbol::FromBuffer),
    row(NUMERIC, &["_frombuffer"], Symbol::FromBuffer),
    row(&["numpy", "numpy.core.multiarray"], &["ndarray"], Symbol::NdArray),
    row(&["numpy", "numpy.core.memmap", "numpy._core.memmap"], &["memmap"], Symbol::NdArray),
    row(&["numpy", "numpy.core.multiarray"], &["dtype"], Symbol::Dtype),
    row(&["numpy", "numpy.core.numerictypes"], SCALAR_TYPES, Symbol::Token),
    row(UMATH, FUNCTIONS, Symbol::Token),
    row(&["numpy.core", "numpy._core"], &["_ufunc_reconstruct"], Symbol::Ufunc),
    row(UMATH, &["_ufunc_reconstruct"], Symbol::Ufunc),
    row(MASKED, &["_mareconstruct"], Symbol::MaskedReconstruct),
    row(MASKED, &["MaskedArray", "MaskedConstant"], Symbol::Inert),
    row(&["_codecs"], &["encode"], Symbol::Encode),
    row(&["builtins"], &["bytes", "bytearray"], Symbol::Bytes),
    row(&["builtins"], &["list", "tuple", "set", "frozenset"], Symbol::Sequence),
    row(&["builtins"], &["dict"], Symbol::Mapping),
    row(&["builtins"], &["object", "slice", "complex", "range"], Symbol::Inert),
    row(&["builtins"], &["int", "float", "str", "bool"], Symbol::Token),
    row(&["copyreg"], &["_reconstructor"], Symbol::Reconstructor),
    row(&["collections"], &["OrderedDict", "Counter"], Symbol::Mapping),
    row(&["collections"], &["defaultdict"], Symbol::DefaultDict),
    row(&["collections"], &["deque"], Symbol::Sequence),
    row(
        &["sklearn.utils._bunch", "sklearn.utils", "sklearn.datasets.base"],
        &["Bunch"],
        Symbol::Mapping,
    ),
    row(
        &["scipy.optimize._optimize", "scipy.optimize.optimize"],
        &["OptimizeResult"],
        Symbol::Mapping,
    ),
    row(
        &["joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle"],
        &["NumpyArrayWrapper"],
        Symbol::JoblibArray,
    ),
    row(&["joblib.memory"], &["Memory", "NotMemorizedFunc"], Symbol::Inert),
    row(&["functools"], &["partial"], Symbol::Inert),
    row(
        &[
            "numpy.random.bit_generator",
            "numpy.random._pickle",
            "numpy.random",
            "numpy.random.mtrand",
        ],
        RANDOM,
        Symbol::Inert,
    ),
    row(
        &[
            "numpy.random._mt19937",
            "numpy.random._pcg64",
            "numpy.random._philox",
            "numpy.random._sfc64",
            "numpy.random._generator",
        ],
        RANDOM,
        Symbol::Inert,
    ),
];

/// Packages whose every class and function is kept inert: estimators, losses, metrics, trees, distributions. Their
/// modules move between versions, so classes are known by their names, and unknown ones are named by the message that
/// refuses them as estimators.
const FAMILIES: &[&str] = &[
    "sklearn",
    // Compiled losses of scikit-learn 1.6 and 1.7 name their module without its package.
    "_loss",
    "xgboost",
    "lightgbm",
    // Splines name the array functions that they use.
    "scipy._lib.array_api_compat",
    "scipy.sparse",
    "scipy.interpolate",
    "scipy.spatial",
    "scipy.special",
    "scipy.stats",
];

/// The name of today of a global of Python 2.
pub(super) fn modern<'a>(module: &'a str, name: &'a str) -> (&'a str, &'a str) {
    match (module, name) {
        ("__builtin__", "unicode") => ("builtins", "str"),
        ("__builtin__", "long") => ("builtins", "int"),
        ("__builtin__", "xrange") => ("builtins", "range"),
        ("__builtin__", name) => ("builtins", name),
        ("copy_reg", name) => ("copyreg", name),
        other => other,
    }
}

/// What a global stands for; `None` for every name that is not in the table.
pub(super) fn symbol(module: &str, name: &str) -> Option<Symbol> {
    let fits = |row: &&Row| row.modules.contains(&module) && row.names.contains(&name);
    if let Some(row) = TABLE.iter().find(fits) {
        return Some(row.symbol);
    }
    let within = |family: &&str| {
        module.strip_prefix(*family).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // Names with a dot reach into classes: bound methods, which models do not need.
    let identifier = |text: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    };
    let old_joblib = module.contains(".externals.");
    // A function that restores an object of the class in its name.
    let class = name.strip_prefix("__pyx_unpickle_").unwrap_or(name);
    let plain = module.split('.').all(identifier) && identifier(class);
    (plain && !old_joblib && FAMILIES.iter().any(within)).then_some(Symbol::Inert)
}

/// Why a global refuses the file.
pub(super) fn refusal(module: &str, name: &str, at: usize) -> Fault {
    let hint = match (module.split('.').next().unwrap_or_default(), name) {
        ("joblib", "NDArrayWrapper" | "ZNDArrayWrapper") | ("sklearn", _) => {
            "save the model again with joblib 0.10 or newer"
        }
        ("__main__", _) => {
            "it is code of the program that saved the model; remove it from the model"
        }
        ("cloudpickle", _) => "code of the program that saved the model is inside; remove it",
        ("pandas", _) => "convert frames and indexes to arrays or lists before saving",
        ("numpy", _) => "arrays, scalars and types of numpy are read, this is not",
        ("builtins", "getattr") => "a method is inside; models are read as data",
        _ => "models do not need it, and nothing of a file is run",
    };
    Fault::unsupported(format!("the global {module}.{name} at byte {at} is refused: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_table_are_refused() {
        for (module, name) in [
            ("posix", "system"),
            ("os", "system"),
            ("subprocess", "Popen"),
            ("builtins", "eval"),
            ("builtins", "exec"),
            ("builtins", "getattr"),
            ("builtins", "__import__"),
            ("numpy", "load"),
            ("numpy.f2py.crackfortran", "getlincoef"),
            ("numpy", "matrix"),
            ("sklearnx", "A"),
            ("sklearn.svm", "SVC.fit"),
            ("sklearn.svm", ""),
            ("sklearn..svm", "A"),
            ("xgboost.core ", "Booster"),
            ("joblib.numpy_pickle", "load"),
            ("pandas.core.indexes.base", "Index"),
            ("functools", "reduce"),
            ("operator", "attrgetter"),
        ] {
            assert_eq!(symbol(module, name), None, "{module}.{name}");
            let Fault::Unsupported(what) = refusal(module, name, 7) else { panic!("unsupported") };
            assert!(what.contains(&format!("{module}.{name}")), "{what}");
        }
    }
}
