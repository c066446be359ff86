//! Limits the compiling of a source while Rhai reads its tokens, the only place where that is possible.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rhai::{Engine, LexError, Position, Token};

use crate::bounds::guard;

/// About the bytes of a compiled token.
const TOKEN: usize = 64;
/// The most arguments of a call. Rhai searches a function in 65,536 ways, each of which reads the types of all arguments,
/// without a check between them: this many take some 60 ms.
const MOST_ARGUMENTS: usize = 255;

/// Make an engine stop reading source once the script has been stopped.
pub fn bound(engine: &mut Engine) {
    let calls = Mutex::new(Calls::default());
    #[allow(deprecated)] // that means: it may change. The version of Rhai is pinned
    engine.on_parse_token(move |token, position, _| {
        if guard::step() {
            return end(); // before the lock: a handler of signals may evaluate meanwhile
        }
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.read(token, position)
    });
}

/// Make an engine also stop when the copies of constants would take too much memory: Rhai's optimizer copies a constant's
/// value to wherever it is named, also into other constants, so that thirty short lines could take all memory.
pub fn bound_with_copies(engine: &mut Engine) {
    let read = Mutex::new((Constants::default(), Calls::default()));
    #[allow(deprecated)]
    engine.on_parse_token(move |token, position, _| {
        let is_stopped = guard::step();
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        let (constants, calls) = &mut *read;
        constants.read(&token);
        if is_stopped || guard::allow(constants.copies).is_err() {
            end()
        } else {
            calls.read(token, position)
        }
    });
}

/// A token that ends the reading; the guard knows the reason.
fn end() -> Token {
    Token::LexError(LexError::Runtime("stopped".to_owned()).into())
}

/// The calls whose arguments are being read.
#[derive(Default)]
struct Calls {
    /// The open brackets, each within the one before.
    open: Vec<Bracket>,
}

/// An open bracket.
struct Bracket {
    position: Position,
    /// How many commas are directly within parentheses; `None` for other brackets.
    commas: Option<usize>,
}

impl Bracket {
    /// Whether a token is of another source than the bracket, whose reading an error has ended: it does not come after it.
    /// Rhai counts lines and characters to 65,535; from there on, tokens of one source need not be in order. Parts of an
    /// interpolated string may have no position.
    fn is_behind(&self, position: Position) -> bool {
        let is_counted = |number: Option<usize>| number.is_some_and(|number| number < usize::from(u16::MAX));
        is_counted(position.line()) && is_counted(position.position()) && position <= self.position
    }
}

impl Calls {
    /// Return the token, or one that ends the reading of a call with too many arguments.
    fn read(&mut self, token: Token, position: Position) -> Token {
        if self.open.first().is_some_and(|first| first.is_behind(position)) {
            self.open.clear();
        }
        let bracket = |commas| Bracket { position, commas };
        match token {
            Token::LeftParen => self.open.push(bracket(Some(0))),
            Token::LeftBracket | Token::LeftBrace | Token::MapStart => self.open.push(bracket(None)),
            Token::RightParen | Token::RightBracket | Token::RightBrace => drop(self.open.pop()),
            Token::Comma => {
                if let Some(commas) = self.open.last_mut().and_then(|last| last.commas.as_mut()) {
                    *commas += 1;
                    if *commas >= MOST_ARGUMENTS {
                        let text = format!("A function takes at most {MOST_ARGUMENTS} arguments");
                        return Token::LexError(LexError::Runtime(text).into());
                    }
                }
            }
            _ => {}
        }
        token
    }
}

/// The constants in the part of a script that has been read, and their sizes.
#[derive(Default)]
struct Constants {
    /// Bytes of a copy, by name; copies of numbers take none.
    sizes: HashMap<String, usize>,
    /// The constants whose values are being read, each within the one before.
    open: Vec<Declaration>,
    /// The number of open brackets.
    depth: usize,
    /// Bytes of all copies.
    copies: usize,
}

struct Declaration {
    name: Option<String>,
    depth: usize,
    size: usize,
    /// Whether the value may be more than a number.
    grows: bool,
}

impl Constants {
    fn read(&mut self, token: &Token) {
        match token {
            Token::Const => self.open.push(Declaration {
                name: None,
                depth: self.depth,
                size: 0,
                grows: false,
            }),
            Token::Identifier(name) => match self.open.last_mut() {
                Some(declared) if declared.name.is_none() => declared.name = Some(name.to_string()),
                _ => self.copy(name),
            },
            Token::StringConstant(text) | Token::InterpolatedString(text) => self.add(text.len(), true),
            Token::CharConstant(_) => self.add(TOKEN, true),
            Token::LeftBracket | Token::MapStart => {
                self.depth += 1;
                self.add(TOKEN, true);
            }
            Token::LeftBrace | Token::LeftParen => self.depth += 1,
            Token::RightBrace | Token::RightBracket | Token::RightParen => {
                self.depth = self.depth.saturating_sub(1);
                self.close(self.depth + 1);
            }
            Token::SemiColon => self.close(self.depth),
            _ => self.add(TOKEN, false),
        }
    }

    /// Count a copy of the constant of this name, if there is one.
    fn copy(&mut self, name: &str) {
        if let Some(&size) = self.sizes.get(name) {
            self.copies = self.copies.saturating_add(size);
            self.add(size, true);
        }
    }

    fn add(&mut self, size: usize, grows: bool) {
        if let Some(declared) = self.open.last_mut() {
            declared.size = declared.size.saturating_add(size);
            declared.grows |= grows;
        }
    }

    /// End the declarations at this depth.
    fn close(&mut self, depth: usize) {
        while self.open.last().is_some_and(|declared| declared.depth >= depth) {
            let Some(declared) = self.open.pop() else { return };
            self.add(declared.size, declared.grows);
            if let Some(name) = declared.name.filter(|_| declared.grows) {
                let size = self.sizes.entry(name).or_default();
                *size = declared.size.max(*size);
            }
        }
    }
}
