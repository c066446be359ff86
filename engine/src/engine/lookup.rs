//! Constants from outside, and their look-up while a script runs: a call of a function that no script can name.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use rhai::{
    Dynamic, Engine, EvalAltResult, Expr, FnCallExpr, FuncRegistration, ImmutableString, Module, Position,
    RhaiFunc, Shared, Stmt, Token,
};

use crate::crossing::evaluation::Evaluation;

/// What a compiled script knows of a constant from outside.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    Array,
    Map,
}

impl Kind {
    pub fn of(value: &Dynamic) -> Self {
        if value.is_map() {
            Self::Map
        } else if value.is_array() {
            Self::Array
        } else {
            Self::Plain
        }
    }
}

/// A constant, and whether the script declares anything of its name.
pub struct Constant {
    pub kind: Kind,
    pub declared: bool,
}

/// The constants that a script may name.
pub type Constants = BTreeMap<ImmutableString, Constant>;

impl Constant {
    pub fn is_collection(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// Whether closures look it up where they would capture it: each call of a closure copies what it has captured.
    pub fn is_never_captured(&self) -> bool {
        self.is_collection() && !self.declared
    }
}

/// No identifier begins with this sign.
const NAME: &str = "$constant";

/// Calls of the function with a name; with a name and a key; with a name and a value to assign. Only Rhai's parser can make one, since it calculates hashes.
static CALLS: LazyLock<[Option<FnCallExpr>; 3]> = LazyLock::new(|| {
    let mut engine = Engine::new_raw();
    #[allow(deprecated)] // that means: it may change. The version of Rhai is pinned
    engine.on_parse_token(|token, _, _| match token {
        Token::Identifier(_) => Token::Identifier(Box::new(NAME.into())),
        token => token,
    });
    ["f(1)", "f(1, 2)", "f(1, 2, 3)"].map(|source| {
        let ast = engine.compile(source).ok()?;
        match ast.statements().first()? {
            Stmt::FnCall(call, _) => Some((**call).clone()),
            Stmt::Expr(expression) => match &**expression {
                Expr::FnCall(call, _) => Some((**call).clone()),
                _ => None,
            },
            _ => None,
        }
    })
});

/// Return the expression that looks a constant up, or the entry of a constant that is a map.
pub fn expression(name: &ImmutableString, key: Option<ImmutableString>, position: Position) -> Option<Expr> {
    let arguments = [Some(name.clone()), key];
    let arguments = arguments.into_iter().flatten();
    call(
        arguments.map(|text| Expr::StringConstant(text, position)),
        position,
    )
}

/// Return the expression that evaluates what is assigned to a constant, and then fails.
pub fn refusal(name: &ImmutableString, assigned: Expr, position: Position) -> Option<Expr> {
    let name = Expr::StringConstant(name.clone(), position);
    call([name, Expr::Unit(position), assigned].into_iter(), position)
}

fn call(arguments: impl Iterator<Item = Expr>, position: Position) -> Option<Expr> {
    let arguments: Vec<_> = arguments.collect();
    let mut call = CALLS.get(arguments.len().checked_sub(1)?)?.clone()?;
    call.args = arguments.into_iter().collect();
    Some(Expr::FnCall(call.into(), position))
}

/// Add the function to Rhai's library.
pub fn add_to(library: &mut Module) {
    let (text, unit, any) = (
        TypeId::of::<ImmutableString>(),
        TypeId::of::<()>(),
        TypeId::of::<Dynamic>(),
    );
    for parameters in [&[text][..], &[text, text], &[text, unit, any]] {
        FuncRegistration::new(NAME)
            .in_global_namespace()
            .set_into_module_raw(
                library,
                parameters,
                RhaiFunc::Pure {
                    func: Shared::new(|_, arguments: &mut [&mut Dynamic]| look_up(arguments)),
                    has_context: false,
                    is_pure: true,
                    is_volatile: true,
                },
            );
    }
}

fn look_up(arguments: &[&mut Dynamic]) -> Result<Dynamic, Box<EvalAltResult>> {
    let text = |place: usize| {
        let argument = arguments.get(place)?;
        argument.as_immutable_string_ref().ok()
    };
    let name = text(0).ok_or("a constant without a name")?;
    if arguments.len() > 2 {
        return Err(EvalAltResult::ErrorAssignmentToConstant(name.to_string(), Position::NONE).into());
    }
    let found = Evaluation::with(|evaluation| {
        let mut constants = evaluation.constants.iter().rev();
        let (_, value) = constants.find(|(known, _)| known == name.as_str())?;
        match text(1) {
            None => Some(value.clone()),
            Some(key) => match value.as_map_ref() {
                Ok(map) => Some(map.get(key.as_str()).cloned().unwrap_or(Dynamic::UNIT)),
                Err(_) => None,
            },
        }
    });
    let missing = || EvalAltResult::ErrorVariableNotFound(name.to_string(), Position::NONE).into();
    found.flatten().ok_or_else(missing)
}
