//! Tree ensembles: the form that XGBoost, LightGBM and scikit-learn's trees lower to.
