//! Constants from outside, and their look-up while a script runs: a call of a function that no script can name.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use rhai::{
    Dynamic, Engine, EvalAltResult, Expr, FnCallExpr, FuncRegistration, ImmutableString, Module,
    NativeCallContext, Position, RhaiFunc, Scope, Shared, Stmt, Token,
};

use crate::bounds::guard::Fallible;
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

/// Calls of the function with a name; with a name and a key; with a name and a value to assign.
static CALLS: LazyLock<[Option<FnCallExpr>; 3]> =
    LazyLock::new(|| ["f(1)", "f(1, 2)", "f(1, 2, 3)"].map(|source| unnameable(NAME, source)));

/// Return a call like that in a source, of a function that no script can name. Only Rhai's parser can make one, since it
/// calculates hashes.
pub fn unnameable(name: &'static str, source: &str) -> Option<FnCallExpr> {
    let mut engine = Engine::new_raw();
    #[allow(deprecated)] // that means: it may change. The version of Rhai is pinned
    engine.on_parse_token(move |token, _, _| match token {
        Token::Identifier(_) => Token::Identifier(Box::new(name.into())),
        token => token,
    });
    let ast = engine.compile(source).ok()?;
    match ast.statements().first()? {
        Stmt::FnCall(call, _) => Some((**call).clone()),
        Stmt::Expr(expression) => match &**expression {
            Expr::FnCall(call, _) => Some((**call).clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Return the expression that looks a constant up, or the entry of a constant that is a map.
pub fn expression(name: &ImmutableString, key: Option<ImmutableString>, position: Position) -> Option<Expr> {
    let arguments = [Some(name.clone()), key];
    let arguments = arguments.into_iter().flatten();
    call(
        arguments.map(|text| Expr::StringConstant(text, position)),
        position,
    )
}

/// Return the expression that looks up an item of an entry, of a constant that is a map.
pub fn item(name: &ImmutableString, key: ImmutableString, index: Expr, position: Position) -> Option<Expr> {
    let [name, key] = [name.clone(), key].map(|text| Expr::StringConstant(text, position));
    call([name, key, index].into_iter(), position)
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
    for parameters in [&[text][..], &[text, text], &[text, text, any], &[text, unit, any]] {
        FuncRegistration::new(NAME)
            .in_global_namespace()
            .set_into_module_raw(
                library,
                parameters,
                RhaiFunc::Pure {
                    func: Shared::new(
                        |context: Option<NativeCallContext<'_>>, arguments: &mut [&mut Dynamic]| {
                            look_up(context.as_ref(), arguments)
                        },
                    ),
                    has_context: true,
                    is_pure: true,
                    is_volatile: true,
                },
            );
    }
}

fn look_up(context: Option<&NativeCallContext<'_>>, arguments: &[&mut Dynamic]) -> Fallible<Dynamic> {
    let text = |place: usize| {
        let argument = arguments.get(place)?;
        argument.as_immutable_string_ref().ok()
    };
    let name = text(0).ok_or("a constant without a name")?;
    let (key, index) = (text(1), arguments.get(2));
    if let (None, Some(_)) = (&key, index) {
        return Err(EvalAltResult::ErrorAssignmentToConstant(name.to_string(), Position::NONE).into());
    }
    let found = Evaluation::with(|evaluation| {
        let mut constants = evaluation.constants.iter().rev();
        let (_, value) = constants.find(|(known, _)| known == name.as_str())?;
        let Some(key) = key else {
            return Some(Ok(value.clone()));
        };
        let map = value.as_map_ref().ok()?;
        let entry = map.get(key.as_str()).unwrap_or(&Dynamic::UNIT);
        Some(match index {
            None => Ok(entry.clone()),
            Some(index) => item_of(context, entry, index),
        })
    });
    let missing = || EvalAltResult::ErrorVariableNotFound(name.to_string(), Position::NONE).into();
    found.flatten().unwrap_or_else(|| Err(missing()))
}

/// Return an item of a value. The most frequent indices are read without a copy of the value.
fn item_of(context: Option<&NativeCallContext<'_>>, value: &Dynamic, index: &Dynamic) -> Fallible<Dynamic> {
    if let (Ok(array), Ok(place)) = (value.as_array_ref(), index.as_int()) {
        let place = usize::try_from(place).ok();
        if let Some(item) = place.and_then(|place| array.get(place)) {
            return Ok(item.clone());
        }
    }
    if let (Ok(map), Ok(key)) = (value.as_map_ref(), index.as_immutable_string_ref()) {
        return Ok(map.get(key.as_str()).cloned().unwrap_or(Dynamic::UNIT));
    }
    let context = context.ok_or("Rhai calls a function without its context")?;
    let mut scope = Scope::new();
    scope.push_dynamic("value", value.clone());
    scope.push_dynamic("index", index.clone());
    let item = context
        .engine()
        .eval_expression_with_scope(&mut scope, "value[index]");
    item.map_err(|mut error| {
        error.clear_position(); // that of the expression here
        error
    })
}
