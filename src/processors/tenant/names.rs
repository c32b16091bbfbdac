//! Which names backends take for tenants.

/// The longest name, in bytes.
const LONGEST: usize = 150;

/// Checks a tenant's name: at most 150 bytes of letters, digits and `!-_.*'()`, not `.` and not `..`.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
    match name {
        "" => Err("a name must not be empty"),
        "." | ".." => Err("backends refuse \".\" and \"..\""),
        _ if name.len() > LONGEST => Err("a name has at most 150 bytes"),
        _ if !name.bytes().all(allowed) => Err("a name consists of letters, digits and ! - _ . * ' ( )"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_backends_take() {
        let longest = "x".repeat(150);
        for name in ["a", "team-a", "A_1.b!*'()", "...", &longest] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let longer = "x".repeat(151);
        for name in ["", ".", "..", "a b", "a|b", "a/b", "é", "a\n", "a:b", "a,b", "\0", &longer] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }
}
