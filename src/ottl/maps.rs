//! Changing maps: a message's attributes in place, and maps within values by writing them anew.

use std::collections::HashMap;

use bumpalo::Bump;
use regex::bytes::Regex;

use super::ast::Key;
use super::editors::Replacement;
use super::eval::Env;
use super::paths::{Field, Path};
use super::value::{Buf, Fault, Val, check_depth, cuts_character, entries, items, put_bytes, put_entry};
use crate::processors::edit::Message;

/// The longest list that setting an element makes.
const MAX_PADDING: usize = 1000;

/// More comparisons of keys than this are done by hashing.
const MAX_COMPARISONS: usize = 4096;

/// What is done to each entry of a map.
#[derive(Debug, Clone)]
pub(super) enum MapEdit {
    DeleteMatching(Regex),
    KeepKeys(Box<[Box<[u8]>]>),
    KeepMatching(Regex),
    /// At most so many; these first.
    Limit(usize, Box<[Box<[u8]>]>),
    /// Texts are cut to so many bytes, not within a character.
    Truncate(usize),
    ReplaceValues(Replacement),
    ReplaceKeys(Replacement),
}

/// How maps are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    Insert,
    Update,
    Upsert,
}

/// What becomes of an entry.
enum Decision<'b> {
    Keep,
    Delete,
    Value(&'b [u8]),
    Key(&'b [u8]),
}

/// What is known of a map before its entries are gone through.
struct Pass {
    /// How many more entries that have no priority may stay.
    room: usize,
}

impl Strategy {
    fn sets(self, present: bool) -> bool {
        match self {
            Strategy::Insert => !present,
            Strategy::Update => present,
            Strategy::Upsert => true,
        }
    }
}

impl MapEdit {
    /// Changes the map at a path of the message.
    pub(super) fn run(&self, path: &Path, message: &mut Message<'_>, arena: &Bump) -> Result<(), Fault> {
        if whole(path) {
            return self.run_attributes(message, arena);
        }
        let map = read_map(path, "the editor", message, arena)?;
        let mut pass = self.pass(|f| entries(map, arena).try_for_each(|e| e.map(|(key, _)| f(key))))?;
        let mut out = Buf::with_capacity_in(map.len(), arena);
        let mut changed = false;
        for entry in entries(map, arena) {
            let (key, any) = entry?;
            let decision = self.decide(key, any, &mut pass, message, arena)?;
            changed |= !matches!(decision, Decision::Keep);
            match decision {
                Decision::Keep => put_entry(&mut out, key, any),
                Decision::Delete => {}
                Decision::Value(any) => put_entry(&mut out, key, any),
                Decision::Key(key) => put_entry(&mut out, key, any),
            }
        }
        if changed {
            path.write(Val::Map(out.into_bump_slice()), message, arena)?;
        }
        Ok(())
    }

    fn run_attributes(&self, message: &mut Message<'_>, arena: &Bump) -> Result<(), Fault> {
        let mut pass = self.pass(|f| {
            message.attributes().for_each(|(_, key, _)| f(key));
            Ok::<(), Fault>(())
        })?;
        let mut renamed: Vec<(&[u8], &[u8])> = Vec::new();
        for place in 0..message.places() {
            let Some((key, any)) = message.attribute_at(place) else { continue };
            match self.decide(key, any, &mut pass, message, arena)? {
                Decision::Keep => {}
                Decision::Delete => message.delete_attribute_at(place),
                Decision::Value(any) => message.set_attribute_at(place, any)?,
                Decision::Key(new) => {
                    renamed.push((new, arena.alloc_slice_copy(any)));
                    message.delete_attribute_at(place);
                }
            }
        }
        put_all(message, renamed.len(), renamed.into_iter().map(Ok), Strategy::Upsert, arena)
    }

    /// Looks at all keys, where that is needed.
    fn pass<E>(&self, keys: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>) -> Result<Pass, E> {
        let mut pass = Pass { room: usize::MAX };
        if let MapEdit::Limit(limit, first) = self {
            let (mut all, mut preferred) = (0usize, 0usize);
            keys(&mut |key| {
                all += 1;
                preferred += usize::from(contains(first, key));
            })?;
            if all > *limit {
                pass.room = limit.saturating_sub(preferred);
            }
        }
        Ok(pass)
    }

    fn decide<'b>(
        &self,
        key: &[u8],
        any: &[u8],
        pass: &mut Pass,
        message: &Message<'_>,
        arena: &'b Bump,
    ) -> Result<Decision<'b>, Fault> {
        let keep_if = |keep| if keep { Decision::Keep } else { Decision::Delete };
        Ok(match self {
            MapEdit::DeleteMatching(regex) => keep_if(!regex.is_match(key)),
            MapEdit::KeepMatching(regex) => keep_if(regex.is_match(key)),
            MapEdit::KeepKeys(keys) => keep_if(contains(keys, key)),
            MapEdit::Limit(_, first) => {
                if contains(first, key) {
                    return Ok(Decision::Keep);
                }
                let stays = pass.room > 0;
                pass.room = pass.room.saturating_sub(1);
                keep_if(stays)
            }
            MapEdit::Truncate(limit) => match Val::read(any, arena)? {
                Val::Str(text) if text.len() > *limit => {
                    let text = arena.alloc_slice_copy(cut(text, *limit));
                    Decision::Value(Val::Str(text).encode(arena)?)
                }
                _ => Decision::Keep,
            },
            MapEdit::ReplaceValues(replacement) => match Val::read(any, arena)? {
                Val::Str(text) => match replacement.apply(text, message, arena)? {
                    Some(new) => Decision::Value(Val::Str(new).encode(arena)?),
                    None => Decision::Keep,
                },
                _ => Decision::Keep,
            },
            MapEdit::ReplaceKeys(replacement) => match replacement.apply(key, message, arena)? {
                Some(new) if new != key => Decision::Key(new),
                _ => Decision::Keep,
            },
        })
    }
}

/// Whether a path is all attributes of a message.
pub(super) fn whole(path: &Path) -> bool {
    path.field == Field::Attributes && path.keys.is_empty()
}

/// The map at a path, in the arena.
fn read_map<'b>(
    path: &Path,
    who: &'static str,
    message: &Message<'_>,
    arena: &'b Bump,
) -> Result<&'b [u8], Fault> {
    match path.read(&Env { message, arena, kept: &[] })?.copy(arena) {
        Val::Map(map) => Ok(map),
        other => Err(Fault::wrong(who, "a map", other)),
    }
}

fn contains(keys: &[Box<[u8]>], key: &[u8]) -> bool {
    keys.iter().any(|k| **k == *key)
}

/// The first bytes of a text, in whole characters.
fn cut(text: &[u8], limit: usize) -> &[u8] {
    let mut end = limit;
    while end > 0 && cuts_character(text, end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

/// Deletes a key of the map at a path.
pub(super) fn delete_key(
    path: &Path,
    key: &[u8],
    message: &mut Message<'_>,
    arena: &Bump,
) -> Result<(), Fault> {
    if whole(path) {
        message.delete_attribute(key);
        return Ok(());
    }
    let map = read_map(path, "delete_key", message, arena)?;
    let mut out = Buf::with_capacity_in(map.len(), arena);
    let mut changed = false;
    for entry in entries(map, arena) {
        let (found, any) = entry?;
        if found == key {
            changed = true;
        } else {
            put_entry(&mut out, found, any);
        }
    }
    if changed {
        path.write(Val::Map(out.into_bump_slice()), message, arena)?;
    }
    Ok(())
}

/// Merges a map, which is in the arena, into the one at a path.
pub(super) fn merge(
    path: &Path,
    source: &[u8],
    strategy: Strategy,
    message: &mut Message<'_>,
    arena: &Bump,
) -> Result<(), Fault> {
    if whole(path) {
        let count = entries(source, arena).count();
        return put_all(
            message,
            count,
            entries(source, arena).map(|e| e.map_err(Fault::from)),
            strategy,
            arena,
        );
    }
    let map = read_map(path, "merge_maps", message, arena)?;
    let mut order: Vec<(&[u8], &[u8])> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for entry in entries(map, arena) {
        let (key, any) = entry?;
        places.entry(key).or_insert(order.len());
        order.push((key, any));
    }
    for entry in entries(source, arena) {
        let (key, any) = entry?;
        let place = places.get(key).copied();
        if !strategy.sets(place.is_some()) {
            continue;
        }
        match place.and_then(|at| order.get_mut(at)) {
            Some(old) => old.1 = any,
            None => {
                places.insert(key, order.len());
                order.push((key, any));
            }
        }
    }
    let mut out = Buf::with_capacity_in(map.len() + source.len(), arena);
    order.iter().for_each(|(key, any)| put_entry(&mut out, key, any));
    path.write(Val::Map(out.into_bump_slice()), message, arena)
}

/// Replaces all attributes by the entries of a map, which is in the arena.
pub(super) fn replace_all(message: &mut Message<'_>, map: &[u8], arena: &Bump) -> Result<(), Fault> {
    for entry in entries(map, arena) {
        entry?;
    }
    for place in 0..message.places() {
        message.delete_attribute_at(place);
    }
    let count = entries(map, arena).count();
    put_all(message, count, entries(map, arena).map(|e| e.map_err(Fault::from)), Strategy::Upsert, arena)
}

/// Sets attributes, in time linear in what there is.
fn put_all<'b>(
    message: &mut Message<'_>,
    count: usize,
    new: impl Iterator<Item = Result<(&'b [u8], &'b [u8]), Fault>>,
    strategy: Strategy,
    arena: &'b Bump,
) -> Result<(), Fault> {
    if count.saturating_mul(message.places() + count) <= MAX_COMPARISONS {
        for entry in new {
            let (key, any) = entry?;
            if strategy.sets(message.attribute(key).is_some()) {
                check_depth(any, arena, 0)?;
                message.set_attribute(key, any)?;
            }
        }
        return Ok(());
    }
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for (place, key, _) in message.attributes() {
        places.entry(arena.alloc_slice_copy(key)).or_insert(place);
    }
    for entry in new {
        let (key, any) = entry?;
        let place = places.get(key).copied();
        check_depth(any, arena, 0)?;
        match place {
            _ if !strategy.sets(place.is_some()) => {}
            Some(place) => message.set_attribute_at(place, any)?,
            None => {
                places.insert(key, message.places());
                message.add_attribute(key, any)?;
            }
        }
    }
    Ok(())
}

/// The encoded value `current` with `new` at some keys in it. Maps that are missing are made, lists are filled up.
pub(super) fn put_at<'b>(
    current: Val<'b>,
    keys: &[Key],
    new: &'b [u8],
    arena: &'b Bump,
) -> Result<&'b [u8], Fault> {
    let [key, rest @ ..] = keys else { return Ok(new) };
    let mut out = Buf::new_in(arena);
    let mut found = false;
    let value = match (key, current) {
        (Key::Str(key), Val::Nil | Val::Map(_)) => {
            let map = if let Val::Map(map) = current { map } else { &[] };
            for entry in entries(map, arena) {
                let (at, any) = entry?;
                if at == &**key && !std::mem::replace(&mut found, true) {
                    put_entry(&mut out, at, put_at(Val::read(any, arena)?, rest, new, arena)?);
                } else {
                    put_entry(&mut out, at, any);
                }
            }
            if !found {
                put_entry(&mut out, key, put_at(Val::Nil, rest, new, arena)?);
            }
            Val::Map(out.into_bump_slice())
        }
        (Key::Index(index), Val::List(list)) => {
            for (at, any) in items(list).enumerate() {
                let any = any?;
                if at == *index {
                    found = true;
                    put_bytes(&mut out, 0x0a, put_at(Val::read(any, arena)?, rest, new, arena)?);
                } else {
                    put_bytes(&mut out, 0x0a, any);
                }
            }
            if !found {
                return Err(Fault::Other("an index is past the end of the list"));
            }
            Val::List(out.into_bump_slice())
        }
        (Key::Index(index), Val::Nil) if *index <= MAX_PADDING => {
            (0..*index).for_each(|_| put_bytes(&mut out, 0x0a, &[]));
            put_bytes(&mut out, 0x0a, put_at(Val::Nil, rest, new, arena)?);
            Val::List(out.into_bump_slice())
        }
        (Key::Str(_), other) => return Err(Fault::wrong("[\"key\"]", "a map", other)),
        (Key::Index(_), other) => return Err(Fault::wrong("an index", "a list", other)),
    };
    value.encode(arena)
}
