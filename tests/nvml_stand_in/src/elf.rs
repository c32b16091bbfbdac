//! Takes symbols out of a shared object, so that a look-up by name fails as with a driver that is too old.
//!
//! The name in the table of dynamic strings gets another first letter. The hash table still leads to the entry, and
//! the comparison of names, which every loader makes, then fails.

/// A section header of a 64-bit little-endian ELF file, as far as it is needed.
struct Section {
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

const DYNSYM: u32 = 11;

/// Hides `names` in the file's bytes. A name that is not there is an error: the test would test nothing.
pub(crate) fn hide(file: &mut [u8], names: &[String]) -> Result<(), String> {
    let sections = sections(file).ok_or("not a shared object that this can read")?;
    let symbols = sections.iter().find(|section| section.kind == DYNSYM).ok_or("no dynamic symbols")?;
    let strings = sections.get(symbols.link).ok_or("no dynamic strings")?.offset;
    for name in names {
        let entries = (symbols.offset..symbols.offset + symbols.size).step_by(24);
        let at = entries.filter_map(|entry| Some(strings + number::<4>(file, entry)?)).find(|&at| {
            file.get(at..at + name.len() + 1)
                .is_some_and(|text| text.split_last() == Some((&0, name.as_bytes())))
        });
        let at = at.ok_or_else(|| format!("no symbol {name}"))?;
        file[at] = b'_';
    }
    Ok(())
}

fn sections(file: &[u8]) -> Option<Vec<Section>> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = number::<8>(file, 0x28)?;
    let (size, count) = (number::<2>(file, 0x3A)?, number::<2>(file, 0x3C)?);
    (0..count)
        .map(|at| {
            let header = table + at * size;
            Some(Section {
                kind: number::<4>(file, header + 4)? as u32,
                offset: number::<8>(file, header + 0x18)?,
                size: number::<8>(file, header + 0x20)?,
                link: number::<4>(file, header + 0x28)?,
            })
        })
        .collect()
}

/// A little-endian number of so many bytes.
fn number<const BYTES: usize>(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..at + BYTES)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}
