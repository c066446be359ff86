//! The variables of one evaluation: those that the caller gives, and those of a scope that outlives it.

use pyo3::prelude::*;
use rhai::{Dynamic, ImmutableString, Scope};

use crate::crossing::stack::{self, DropOnBigStack};
use crate::values::from_python::entries;
use crate::values::scope::NativeScope;

/// The variables of one evaluation.
pub struct Variables<'a> {
    pub scope: DropOnBigStack<Scope<'static>>,
    /// Constants, which are also compiled into the script.
    pub constants: DropOnBigStack<Vec<(String, Dynamic)>>,
    /// The scope that keeps its variables.
    lasting: Option<&'a NativeScope>,
    /// How many variables the caller gave; they come first.
    given: usize,
}

impl<'a> Variables<'a> {
    /// `scope`: a `NativeScope` or a mapping; `constants`: a mapping.
    pub fn new(scope: Option<&'a Bound<'_, PyAny>>, constants: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut constants = constants.map_or(Ok(DropOnBigStack::new(Vec::new())), entries)?;
        let mut variables = DropOnBigStack::new(Scope::new());
        for (name, value) in &*constants {
            variables.push_constant_dynamic(name.as_str(), stack::copy(value));
        }
        let mut lasting = None;
        if let Some(scope) = scope {
            if let Ok(scope) = scope.cast::<NativeScope>() {
                constants.splice(0..0, scope.get().constants()?);
                lasting = Some(scope.get());
            } else {
                for (name, value) in entries(scope)?.take() {
                    variables.push_dynamic(name, value);
                }
            }
        }
        Ok(Self {
            given: variables.len(),
            scope: variables,
            constants,
            lasting,
        })
    }

    /// Take the variables of the lasting scope; until `end`, no other script can use them.
    pub fn begin(&mut self) -> PyResult<()> {
        if let Some(lasting) = self.lasting {
            move_to(&mut self.scope, lasting.take()?);
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
            let (mut of_call, mut rest) = (DropOnBigStack::new(Scope::new()), Scope::new());
            let mut entries = self.scope.take().into_iter();
            move_to(&mut of_call, entries.by_ref().take(self.given));
            move_to(&mut rest, entries);
            lasting.put(rest);
        }
    }
}

/// Move entries to the end of a scope.
fn move_to(
    scope: &mut Scope<'static>,
    entries: impl IntoIterator<Item = (String, Dynamic, Vec<ImmutableString>)>,
) {
    scope.extend(entries.into_iter().map(|(name, value, _)| {
        let constant = value.is_read_only();
        (name, constant, value)
    }));
}
