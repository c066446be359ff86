//! Safe versions of the library's functions of strings: Rhai's own take many times the string's memory, or take long.

use std::ops::{Range, RangeInclusive};

use rhai::{Array, Blob, Dynamic, INT, ImmutableString};

use crate::bounds::guard::{self, Fallible};
use crate::bounds::text::Text;
use crate::engine::safe_library::Library;

/// Bytes of a text that change case at once.
const CHUNK: usize = 64 * 1024;
/// Times its length that a text may grow when its case changes.
const CASE_GROWTH: usize = 3;

/// Put these functions into Rhai's library.
pub fn add_to(library: &mut Library<'_>) {
    iterating(library);
    cutting(library);
    searching(library);
    changing(library);
    decoding(library);
}

/// The characters of a string; Rhai's own iterator collects them first.
#[derive(Clone)]
struct Characters {
    string: ImmutableString,
    at: usize,
    left: usize,
}

impl Characters {
    fn new(string: ImmutableString, start: INT, length: INT) -> Self {
        Self {
            at: string.len() - from(&string, start).len(),
            left: usize::try_from(length).unwrap_or(0),
            string,
        }
    }
}

impl Iterator for Characters {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        self.left = self.left.checked_sub(1)?;
        let next = self.string.get(self.at..)?.chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

fn iterating(library: &mut Library<'_>) {
    library.add_iterator(|string: ImmutableString| Characters::new(string, 0, INT::MAX).map(Dynamic::from));
    library.add_iterator(|characters: Characters| characters.map(Dynamic::from));
    library.add_getter("chars", |s: ImmutableString| Characters::new(s, 0, INT::MAX));
    library.add("chars", |s: ImmutableString| Characters::new(s, 0, INT::MAX));
    library.add("chars", |s: ImmutableString, start: INT| {
        Characters::new(s, start, INT::MAX)
    });
    library.add("chars", Characters::new);
    library.add("chars", |s: ImmutableString, range: Range<INT>| {
        let (start, length) = exclusive(&range);
        Characters::new(s, start, length)
    });
    library.add("chars", |s: ImmutableString, range: RangeInclusive<INT>| {
        let start = (*range.start()).max(0);
        let end = (*range.end()).max(start - 1).min(INT::MAX - 1);
        Characters::new(s, start, end - start + 1)
    });
}

fn cutting(library: &mut Library<'_>) {
    fn sub_string(s: ImmutableString, start: INT, length: INT) -> Fallible<ImmutableString> {
        copy(part(&s, start, length))
    }
    fn crop(s: &mut ImmutableString, start: INT, length: INT) -> Fallible<()> {
        *s = copy(part(s, start, length))?;
        Ok(())
    }
    library.add("sub_string", sub_string);
    library.add("sub_string", |s: ImmutableString, start: INT| {
        sub_string(s, start, INT::MAX)
    });
    library.add("sub_string", |s: ImmutableString, range: Range<INT>| {
        let (start, length) = exclusive(&range);
        sub_string(s, start, length)
    });
    library.add("sub_string", |s: ImmutableString, range: RangeInclusive<INT>| {
        let (start, length) = inclusive(&range);
        sub_string(s, start, length)
    });
    library.add_change("crop", crop);
    library.add_change("crop", |s: &mut ImmutableString, start: INT| {
        crop(s, start, INT::MAX)
    });
    library.add_change("crop", |s: &mut ImmutableString, range: Range<INT>| {
        let (start, length) = exclusive(&range);
        crop(s, start, length)
    });
    library.add_change("crop", |s: &mut ImmutableString, range: RangeInclusive<INT>| {
        let (start, length) = inclusive(&range);
        crop(s, start, length)
    });
    library.add_change("trim", |s: &mut ImmutableString| {
        let trimmed = s.trim();
        if trimmed.len() < s.len() {
            *s = copy(trimmed)?;
        }
        Fallible::Ok(())
    });
    library.add_change("pop", |s: &mut ImmutableString, length: INT| {
        let rest = behind(s, s.chars().count().saturating_sub(count(length)));
        let (kept, popped) = s.split_at(s.len() - rest.len());
        let popped = copy(popped)?;
        *s = copy(kept)?;
        Fallible::Ok(popped)
    });
    library.add("split", |s: &mut ImmutableString, at: INT| {
        let characters = if at > 0 {
            count(at)
        } else {
            s.chars().count().saturating_sub(back(at))
        };
        let rest = behind(s, characters);
        let first = copy(&s[..s.len() - rest.len()])?;
        Fallible::<Array>::Ok(vec![first.into(), copy(rest)?.into()])
    });
}

fn searching(library: &mut Library<'_>) {
    fn index_of(string: &str, start: INT, find: impl FnOnce(&str) -> Option<usize>) -> INT {
        let rest = from(string, start);
        if string.is_empty() || (start > 0 && rest.is_empty()) {
            return -1;
        }
        find(rest).map_or(-1, |at| {
            string[..string.len() - rest.len() + at].chars().count() as INT
        })
    }
    library.add(
        "index_of",
        |s: ImmutableString, found: ImmutableString, start: INT| {
            index_of(&s, start, |s| s.find(found.as_str()))
        },
    );
    library.add("index_of", |s: ImmutableString, found: char, start: INT| {
        index_of(&s, start, |s| s.find(found))
    });
}

fn changing(library: &mut Library<'_>) {
    library.add_change("set", |s: &mut ImmutableString, at: INT, with: char| {
        if at < 0 && back(at) > s.chars().count() {
            return;
        }
        let rest = from(s, at);
        let place = s.len() - rest.len();
        if let Some(former) = rest.chars().next() {
            s.make_mut()
                .replace_range(place..place + former.len_utf8(), with.encode_utf8(&mut [0; 4]));
        }
    });
    library.add_change("remove", |s: &mut ImmutableString, what: ImmutableString| {
        if what.is_empty() {
            Ok(())
        } else {
            replace(s, &what, "")
        }
    });
    library.add_change("remove", |s: &mut ImmutableString, what: char| {
        replace(s, what.encode_utf8(&mut [0; 4]), "")
    });
    library.add_change(
        "replace",
        |s: &mut ImmutableString, from: ImmutableString, to: ImmutableString| replace(s, &from, &to),
    );
    library.add_change(
        "replace",
        |s: &mut ImmutableString, from: ImmutableString, to: char| {
            replace(s, &from, to.encode_utf8(&mut [0; 4]))
        },
    );
    library.add_change(
        "replace",
        |s: &mut ImmutableString, from: char, to: ImmutableString| {
            replace(s, from.encode_utf8(&mut [0; 4]), &to)
        },
    );
    library.add_change("replace", |s: &mut ImmutableString, from: char, to: char| {
        replace(s, from.encode_utf8(&mut [0; 4]), to.encode_utf8(&mut [0; 4]))
    });
    for (to, make, is_cased, convert) in [
        (
            "to_upper",
            "make_upper",
            char::is_uppercase as fn(char) -> bool,
            str::to_uppercase as fn(&str) -> String,
        ),
        ("to_lower", "make_lower", char::is_lowercase, str::to_lowercase),
    ] {
        let change = move |s: &mut ImmutableString| {
            if !s.chars().all(is_cased) {
                *s = with_case(s, convert)?.into();
            }
            Fallible::Ok(())
        };
        library.add_change(make, change);
        library.add(to, move |mut s: ImmutableString| change(&mut s).map(|()| s));
    }
}

fn decoding(library: &mut Library<'_>) {
    fn joined(before: &str, blob: &Blob, after: &str) -> Fallible<ImmutableString> {
        let mut text = Text::new();
        text.push(before)?;
        for chunk in blob.utf8_chunks() {
            text.push(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                text.push("\u{fffd}")?;
            }
        }
        text.push(after)?;
        Ok(text.done().into())
    }
    library.add("as_string", |blob: &mut Blob| joined("", blob, ""));
    library.add("+", |blob: &mut Blob, s: ImmutableString| joined("", blob, &s));
    library.add("+", |s: &mut ImmutableString, blob: Blob| joined(s, &blob, ""));
    library.add_change("append", |s: &mut ImmutableString, other: ImmutableString| {
        guard::allow(s.len() + other.len())?; // a copy of a shared text grows
        *s += other;
        Fallible::Ok(())
    });
    for name in ["+=", "append"] {
        library.add_change(name, |s: &mut ImmutableString, blob: Blob| {
            *s = joined(s, &blob, "")?;
            Fallible::Ok(())
        });
    }
}

/// A number of characters; none if it is negative.
fn count(number: INT) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// How many characters before the end a negative place is.
fn back(place: INT) -> usize {
    usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX)
}

/// Return the text behind `characters` of its characters.
fn behind(string: &str, characters: usize) -> &str {
    let mut rest = string.chars();
    if let Some(last) = characters.checked_sub(1) {
        rest.nth(last);
    }
    rest.as_str()
}

/// Return the text from a place on; a negative place counts from the end.
fn from(string: &str, start: INT) -> &str {
    if start < 0 {
        behind(string, string.chars().count().saturating_sub(back(start)))
    } else {
        behind(string, count(start))
    }
}

/// Return `length` characters from a place on.
fn part(string: &str, start: INT, length: INT) -> &str {
    let string = from(string, start);
    &string[..string.len() - behind(string, count(length)).len()]
}

/// Copy a part of a text, if there is memory for it.
fn copy(part: &str) -> Fallible<ImmutableString> {
    guard::allow(part.len())?;
    Ok(part.into())
}

/// Return the start and the length of a range, as Rhai reads it.
fn exclusive(range: &Range<INT>) -> (INT, INT) {
    let start = range.start.max(0);
    (start, range.end.max(start) - start)
}

fn inclusive(range: &RangeInclusive<INT>) -> (INT, INT) {
    let start = (*range.start()).max(0);
    let end = (*range.end()).max(start).min(INT::MAX - 1);
    (start, end - start + 1)
}

fn replace(string: &mut ImmutableString, from: &str, to: &str) -> Fallible<()> {
    if string.is_empty() {
        return Ok(());
    }
    let (mut text, mut done) = (Text::new(), 0);
    for (place, found) in string.match_indices(from) {
        text.push(&string[done..place])?;
        text.push(to)?;
        done = place + found.len();
    }
    text.push(&string[done..])?;
    *string = text.done().into();
    Ok(())
}

/// Change the case of a text, in chunks that end behind white space: the lower case of a sigma depends on its neighbours.
fn with_case(string: &str, convert: fn(&str) -> String) -> Fallible<String> {
    if string.len() <= CHUNK {
        return Ok(convert(string));
    }
    let (mut text, mut rest) = (Text::new(), string);
    while !rest.is_empty() {
        let mut ends = rest.bytes().skip(CHUNK - 1);
        let end = ends.position(|byte| byte.is_ascii_whitespace());
        let (chunk, others) = rest.split_at(end.map_or(rest.len(), |end| end + CHUNK));
        if !chunk.is_ascii() {
            guard::allow(chunk.len().saturating_mul(CASE_GROWTH))?;
        }
        text.push(&convert(chunk))?;
        rest = others;
    }
    Ok(text.done())
}
