//! `count` and `check` against prost: whatever prost accepts counts the same, and `check` accepts exactly
//! what prost accepts but for text that is not UTF-8, the length of ids, and how deep is too deep.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::pdata::wire::WireError;
use tidegate::pdata::{check, count};
use tidegate_fuzz::{Input, oracle::oracle};

fuzz_target!(|data: &[u8]| {
    let Some(Input { signal, request, .. }) = Input::new(data) else { return };
    let (counted, checked) = (count(signal, request), check(signal, request));
    match oracle(signal, request) {
        Ok(items) => {
            assert_eq!(counted, Ok(items));
            assert!(matches!(checked, Ok(_) | Err(WireError::BadId | WireError::TooDeep)), "{checked:?}");
        }
        Err(e) => {
            let known = ["UTF-8", "recursion limit"].iter().any(|k| e.to_string().contains(k));
            assert!(known || checked.is_err(), "accepted in spite of: {e}");
        }
    }
    if let Ok(items) = checked {
        assert_eq!(counted, Ok(items));
    }
});
