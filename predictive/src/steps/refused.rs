//! Why a class is not supported: some have nothing to serve, others are unknown.

use super::ESTIMATORS;
use crate::error::Fault;
use crate::pickle::Object;

/// Classes that answer only for the rows that they were fitted with, which no server can change.
const FITTED_ONLY: &[&str] = &[
    "AgglomerativeClustering",
    "ClassicalMDS",
    "DBSCAN",
    "HDBSCAN",
    "MDS",
    "OPTICS",
    "SpectralBiclustering",
    "SpectralClustering",
    "SpectralCoclustering",
    "SpectralEmbedding",
    "TSNE",
];

/// Classes that estimate a covariance matrix.
const COVARIANCES: &[&str] = &[
    "EmpiricalCovariance",
    "GraphicalLasso",
    "GraphicalLassoCV",
    "LedoitWolf",
    "MinCovDet",
    "OAS",
    "ShrunkCovariance",
];

/// What refuses the class of an object that no row of [`ESTIMATORS`] fits.
pub(super) fn reason(object: Object<'_>) -> Fault {
    let (class, module) = (object.class, object.module);
    let why = if FITTED_ONLY.contains(&class) {
        "it has neither predict nor transform for new rows; train a classifier on its labels, or \
         serve KMeans, Birch or another that has them"
            .to_owned()
    } else if COVARIANCES.contains(&class) {
        "it has no method for rows but their distances; serve EllipticEnvelope for those".to_owned()
    } else if class == "PatchExtractor" {
        "it reads images, and requests are tables; cut patches before the request".to_owned()
    } else {
        let rows = ESTIMATORS.iter().flat_map(|table| table.iter());
        let mut known: Vec<&str> = rows.map(|row| row.class).collect();
        known.sort_unstable();
        format!("supported are {}", known.join(", "))
    };
    Fault::unsupported(format!("the estimator {module}.{class} is not supported: {why}"))
}
