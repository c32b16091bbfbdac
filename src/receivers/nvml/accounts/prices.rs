//! What an hour costs.

use std::collections::BTreeMap;

use crate::receivers::nvml::config::CostConfig;
use crate::receivers::nvml::model::MigIdentity;

/// The product under which the price of all others is written.
const OTHERS: &str = "default";

/// Prices as they were configured. They do not change while the agent runs.
#[derive(Debug)]
pub(super) struct Prices {
    pub(super) currency: String,
    gpus: BTreeMap<String, f64>,
    instances: BTreeMap<String, f64>,
}

impl Prices {
    pub(super) fn new(config: &CostConfig) -> Self {
        Prices {
            currency: config.currency.clone(),
            gpus: config.per_gpu_hour.clone(),
            instances: config.per_mig_hour.clone(),
        }
    }

    /// Of an hour of a whole GPU of this product.
    pub(super) fn gpu(&self, model: &str) -> Option<f64> {
        self.gpus.get(model).or_else(|| self.gpus.get(OTHERS)).copied()
    }

    /// Of an hour of a whole MIG instance, where its profile has a price of its own.
    pub(super) fn instance(&self, mig: &MigIdentity) -> Option<f64> {
        self.instances.get(mig.profile.as_deref()?).copied()
    }
}
