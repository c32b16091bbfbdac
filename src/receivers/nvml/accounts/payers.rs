//! Who pays for what a container holds: the tenant by the configured sources, the namespace, the pod.
//!
//! The sources are asked once for each container; after that a look-up by its name finds the same answer. Containers
//! that did not come again are forgotten when there is no room for another.

use std::collections::HashMap;
use std::sync::Arc;

use crate::components::BuildError;
use crate::processors::tenant::{Namer, SourceConfig};
use crate::receivers::nvml::config::{ATTRIBUTES, OwnerConfig};
use crate::receivers::nvml::holders::{Holder, Owner};

/// The tenant of what nobody holds.
pub const UNALLOCATED: &str = "_unallocated";
/// The tenant of what a process outside of any pod has.
pub const HOST: &str = "_host";
/// The tenant where nobody can tell whose it is.
pub const UNKNOWN: &str = "_unknown";

/// So many containers are remembered; a node has some hundred.
const REMEMBERED: usize = 4096;

/// For whom GPU time is added up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payer {
    /// The tenant, or one of [`UNALLOCATED`], [`HOST`] and [`UNKNOWN`].
    pub tenant: Arc<str>,
    /// The namespace, where there is one and it is known.
    pub namespace: Option<Arc<str>>,
    /// The pod, where there is one, it is known, and pods are kept apart.
    pub pod: Option<Arc<str>>,
}

/// Finds the payer of everything that can be held.
#[derive(Debug)]
pub struct Payers {
    namer: Namer,
    node: String,
    per_pod: bool,
    unallocated: Arc<Payer>,
    host: Arc<Payer>,
    unknown: Arc<Payer>,
    known: HashMap<Arc<Holder>, Known>,
}

#[derive(Debug)]
struct Known {
    payer: Arc<Payer>,
    /// Whether it was asked for since the last time room was made.
    used: bool,
}

impl Payers {
    /// With these sources, on the node of this name. `per_pod` keeps pods of a namespace apart.
    ///
    /// # Errors
    /// Sources that are none, in a config that was not decoded from a file.
    pub fn new(config: &OwnerConfig, node: &str, per_pod: bool) -> Result<Self, BuildError> {
        let [namespace, ..] = ATTRIBUTES;
        let default =
            SourceConfig { attribute: Some(format!("resource.{namespace}")), ..SourceConfig::default() };
        let namer = match config.from.as_slice() {
            [] => Namer::new(&[default])?,
            sources => Namer::new(sources)?,
        };
        let nobody = |tenant: &str| Arc::new(Payer { tenant: tenant.into(), namespace: None, pod: None });
        Ok(Payers {
            namer,
            node: node.to_owned(),
            per_pod,
            unallocated: nobody(UNALLOCATED),
            host: nobody(HOST),
            unknown: nobody(UNKNOWN),
            known: HashMap::new(),
        })
    }

    /// Who pays. Where no source has a name, a container's tenant is [`UNKNOWN`].
    pub fn of(&mut self, owner: &Owner) -> Arc<Payer> {
        let holder = match owner {
            Owner::Pod(holder) => holder,
            Owner::Host => return self.host.clone(),
            Owner::Unallocated => return self.unallocated.clone(),
            Owner::Unknown => return self.unknown.clone(),
        };
        if let Some(known) = self.known.get_mut(holder) {
            known.used = true;
            return known.payer.clone();
        }
        let payer = Arc::new(self.ask(holder));
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, known| std::mem::take(&mut known.used));
        }
        // While all of them are in use, this one is asked for again the next time.
        if self.known.len() < REMEMBERED {
            self.known.insert(holder.clone(), Known { payer: payer.clone(), used: true });
        }
        payer
    }

    /// How many containers are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.known.len()
    }

    fn ask(&self, holder: &Holder) -> Payer {
        let uid = holder.uid.as_deref().unwrap_or_default();
        let values = [&holder.namespace, &holder.pod, uid, &holder.container, &self.node];
        let mut attributes = [("", ""); ATTRIBUTES.len()];
        let mut known = 0;
        // What is not known is not there, rather than empty.
        for (place, pair) in
            attributes.iter_mut().zip(ATTRIBUTES.into_iter().zip(values).filter(|(_, text)| !text.is_empty()))
        {
            *place = pair;
            known += 1;
        }
        let tenant = self.namer.name(attributes.get(..known).unwrap_or_default());
        let part = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Payer {
            tenant: tenant.map_or_else(|| self.unknown.tenant.clone(), Arc::from),
            namespace: part(&holder.namespace),
            pod: part(&holder.pod).filter(|_| self.per_pod),
        }
    }
}
