//! Names the tenant of something that is no request, by the same sources.
//!
//! All that is known of it are attributes of a resource. Sources that look at anything else, at the client, the scope or
//! an item, name nobody. A value that is no tenant's name names nobody either, and the next source is asked.

use super::config::SourceConfig;
use super::sources::Source;
use crate::components::BuildError;

/// Sources that are ready to be asked.
#[derive(Debug)]
pub struct Namer {
    sources: Vec<Source>,
}

impl Namer {
    /// Compiles the sources.
    ///
    /// # Errors
    /// Sources that are none, in a config that was not decoded from a file.
    pub fn new(sources: &[SourceConfig]) -> Result<Self, BuildError> {
        Ok(Namer { sources: sources.iter().map(Source::new).collect::<Result<_, _>>()? })
    }

    /// The tenant whose a resource with these attributes is; `None` for nobody.
    pub fn name(&self, resource: &[(&str, &str)]) -> Option<String> {
        self.sources.iter().find_map(|source| source.of_resource(resource))
    }
}
