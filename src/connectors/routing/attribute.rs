//! Tests on one attribute, as the two halves of a program: what fits stays, or what fits goes.

use std::sync::Arc;

use crate::config::types::{Any, Regex};
use crate::pdata::Signal;
use crate::pdata::wire::WireError;
use crate::processors::edit::{Edit, Fate, Level, Levels, Message, Rewrite, Scalar, StepCx};

/// Keeps what has, or has not, an attribute that fits.
#[derive(Debug)]
struct Pick {
    level: Level,
    key: Box<[u8]>,
    test: Test,
    /// Whether what fits stays; the rest goes.
    keep: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(Any),
    Pattern(regex::bytes::Regex),
}

/// The edit that leaves what fits (`keep`), or what does not. `name` is `resource.X`, `scope.X` or plain.
///
/// # Errors
/// An expression that does not compile for bytes.
pub(super) fn edit(
    name: &str,
    equals: Option<&Any>,
    fits: Option<&Regex>,
    keep: bool,
) -> Result<Edit, String> {
    let (level, key) = match (name.strip_prefix("resource."), name.strip_prefix("scope.")) {
        (Some(key), _) => (Level::Resource, key),
        (_, Some(key)) => (Level::Scope, key),
        _ => (Level::Item, name),
    };
    let test = match (equals, fits) {
        (Some(value), _) => Test::Equal(value.clone()),
        (None, Some(fits)) => {
            Test::Pattern(regex::bytes::Regex::new(fits.as_str()).map_err(|why| why.to_string())?)
        }
        (None, None) => return Err("value or regex is missing".to_owned()),
    };
    Ok(Edit::rules(Arc::new(Pick { level, key: key.as_bytes().into(), test, keep })))
}

impl Rewrite for Pick {
    fn levels(&self, _: Signal) -> Levels {
        self.level.into()
    }

    fn drops(&self) -> bool {
        true
    }

    fn apply(&self, message: &mut Message<'_>, _: &mut StepCx<'_>) -> Result<Fate, WireError> {
        let fits = message.attribute(&self.key).is_some_and(|value| self.test.fits(value));
        Ok(if fits == self.keep { Fate::Skip } else { Fate::Drop })
    }
}

impl Test {
    /// Whether an encoded value fits; one that cannot be read fits nothing.
    fn fits(&self, value: &[u8]) -> bool {
        let Ok(value) = Scalar::read(value) else { return false };
        match self {
            Test::Pattern(pattern) => value.text().is_some_and(|text| pattern.is_match(&text)),
            Test::Equal(want) => match (want, value) {
                (Any::Str(want), Scalar::Str(is)) => want.as_bytes() == is,
                (Any::Bool(want), Scalar::Bool(is)) => *want == is,
                (Any::Int(want), Scalar::Int(is)) => *want == is,
                (Any::Int(want), Scalar::Double(is)) => *want as f64 == is,
                (Any::Float(want), Scalar::Double(is)) => *want == is,
                (Any::Float(want), Scalar::Int(is)) => *want == is as f64,
                _ => false,
            },
        }
    }
}
