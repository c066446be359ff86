//! The variables of one evaluation: those that the caller gives, and those of a scope that outlives it.

use std::collections::HashMap;

use pyo3::prelude::*;
use rhai::{Dynamic, ImmutableString, Scope};

use crate::crossing::origin::Origin;
use crate::crossing::stack::{self, DropOnBigStack};
use crate::values::from_python::entries;
use crate::values::scope::NativeScope;
use crate::values::to_python::FunctionPointer;

/// The variables of one evaluation.
pub struct Variables<'a> {
    pub scope: DropOnBigStack<Scope<'static>>,
    /// Constants, which the script looks up wherever it names them.
    pub constants: DropOnBigStack<Vec<(String, Dynamic)>>,
    /// The scope that keeps its variables.
    pub lasting: Option<&'a NativeScope>,
    /// How many variables the caller gave; they come first.
    given: usize,
    /// How many the lasting scope gave; they follow.
    lasted: usize,
    /// About how many bytes those of the lasting scope held.
    pub held: usize,
    /// How many bytes the evaluation has added to them.
    pub added: isize,
}

impl<'a> Variables<'a> {
    /// `scope`: a `NativeScope` or a mapping; `constants`: a mapping.
    pub fn new(scope: Option<&'a Bound<'_, PyAny>>, constants: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut constants = constants.map_or(Ok(DropOnBigStack::new(Vec::new())), |constants| {
            entries(constants, "constants")
        })?;
        let mut variables = DropOnBigStack::new(Scope::new());
        for (name, value) in &*constants {
            variables.push_constant_dynamic(name.as_str(), stack::copy(value));
        }
        let mut lasting = None;
        if let Some(scope) = scope {
            if let Ok(scope) = scope.cast::<NativeScope>() {
                scope.get().place(scope.py())?;
                constants.splice(0..0, scope.get().constants()?);
                lasting = Some(scope.get());
            } else {
                for (name, value) in entries(scope, "scope")?.take() {
                    variables.push_dynamic(name, value);
                }
            }
        }
        Ok(Self {
            given: variables.len(),
            lasted: 0,
            held: 0,
            added: 0,
            scope: variables,
            constants,
            lasting,
        })
    }

    /// Return the names of all variables and constants.
    pub fn names(&self) -> PyResult<Vec<String>> {
        let mut names: Vec<_> = self.scope.iter_raw().map(|(name, ..)| name.to_owned()).collect();
        if let Some(lasting) = self.lasting {
            names.extend(lasting.names()?.into_iter().map(|(name, _)| name));
        }
        Ok(names)
    }

    /// Add those that the script of a pointer looks up, if a target of a call is one.
    pub fn add_constants_of(&mut self, target: &Bound<'_, PyAny>) {
        if let Ok(pointer) = target.cast::<FunctionPointer>() {
            let origin = pointer.get().origin.iter();
            let constants = origin.flat_map(|origin| origin.constants.iter());
            self.constants
                .extend(constants.map(|(name, value)| (name.clone(), stack::copy(value))));
        }
    }

    /// Add a constant that hides others of its name.
    pub fn add_constant(&mut self, name: &str, mut value: DropOnBigStack<Dynamic>) {
        self.scope.push_constant_dynamic(name, stack::copy(&value));
        self.given += 1;
        self.constants.push((name.to_owned(), value.take()));
    }

    /// Take the variables of the lasting scope; until `end`, no other script can use them.
    pub fn begin(&mut self) -> PyResult<()> {
        if let Some(lasting) = self.lasting {
            let (scope, held) = lasting.take()?;
            self.lasted = scope.len();
            move_to(&mut self.scope, scope);
            self.held = held;
        }
        Ok(())
    }

    /// Free the variables that nobody keeps. The evaluation calls it, where Python's lock is not held.
    pub fn free(&mut self) {
        if self.lasting.is_none() {
            self.scope.clear();
        }
    }

    /// Give the lasting scope its variables, and those that the script has added.
    pub fn end(&mut self) {
        if let Some(lasting) = self.lasting {
            let (mut dropped, mut rest) = (DropOnBigStack::new(Scope::new()), Scope::new());
            let mut entries: Vec<_> = self.scope.take().into_iter().collect();
            move_to(&mut dropped, entries.drain(..self.given));
            if entries.len() > self.lasted {
                let (newest, shadowed) = newest(entries);
                move_to(&mut dropped, shadowed);
                entries = newest;
            }
            move_to(&mut rest, entries);
            lasting.put(rest, self.held.saturating_add_signed(self.added));
        }
    }
}

impl Variables<'_> {
    /// Note which engine and script the values of the lasting scope come from.
    pub fn came_from(&self, origin: Origin) {
        if let Some(lasting) = self.lasting {
            lasting.came_from(origin);
        }
    }
}

type Entry = (String, Dynamic, Vec<ImmutableString>);

/// Part the newest entry of each name from older ones, which no script can reach again.
fn newest(entries: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
    let last: HashMap<_, _> = entries
        .iter()
        .enumerate()
        .map(|(place, entry)| (entry.0.clone(), place))
        .collect();
    let mut place = 0..;
    entries
        .into_iter()
        .partition(|(name, ..)| last.get(name).copied() == place.next())
}

/// Move entries to the end of a scope.
fn move_to(scope: &mut Scope<'static>, entries: impl IntoIterator<Item = Entry>) {
    scope.extend(entries.into_iter().map(|(name, value, _)| {
        let constant = value.is_read_only();
        (name, constant, value)
    }));
}
