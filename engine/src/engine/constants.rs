//! Makes a compiled script look its constants up while it runs, so that one script serves all their values.
//!
//! Rhai's optimizer puts a constant's value where the script names it, and so makes it visible in functions. Here a look-up
//! is in the same places, by the optimizer's own rules: only `let` and `const` hide a constant from it, not a parameter, nor
//! the variable of a loop or of `catch`; and it leaves the first name of a chain, and what follows the value of an `eval`.
//! An original worker, whose constants are texts, answers the same.
//!
//! Beyond that, functions see constants wherever the name means nothing else. A map or an array, which no original worker
//! has as a constant, follows the scopes of the script, and closures do not copy it.

use rhai::{AST, Module, ScriptFuncDef, Shared, StmtBlock};

use crate::engine::lookup::{Constant, Constants, Kind};
use crate::engine::names::{Meaning, Names};
use crate::engine::survey::{Survey, evaluates};
use crate::engine::{by_name, switches};

/// Whether a source may have what `look_up` bounds.
pub fn may_be_unbounded(source: &str) -> bool {
    switches::may_be_in(source) || by_name::may_be_in(source)
}

/// Put look-ups of these constants into a compiled script, and bound its `switch`es and `Fn`s.
pub fn look_up(ast: &AST, constants: &[(&str, Kind)]) -> AST {
    let survey = Survey::of(ast);
    let constants = constants
        .iter()
        .map(|&(name, kind)| {
            let declared = survey.evaluates || survey.names.iter().any(|known| known == name);
            (name.into(), Constant { kind, declared })
        })
        .collect();
    let mut statements = ast.statements().to_vec();
    let mut names = Names::new(&constants, &survey, false);
    names.block(&mut statements);
    let functions = ast
        .shared_lib()
        .iter_script_fn_info()
        .map(|(.., function)| rewritten(function, &constants, &survey))
        .collect::<Vec<_>>();
    let mut rewritten = AST::new(statements, Module::from(functions));
    if let Some(source) = ast.source() {
        rewritten.set_source(source);
    }
    rewritten
}

fn rewritten(
    function: &Shared<ScriptFuncDef>,
    constants: &Constants,
    survey: &Survey,
) -> Shared<ScriptFuncDef> {
    let mut function = ScriptFuncDef::clone(function);
    let captured = survey.captured.get(&function.name).copied().unwrap_or(0);
    let mut names = Names::new(constants, survey, true);
    for (place, parameter) in function.params.iter().enumerate() {
        let looked_up = constants.get(parameter).is_some_and(Constant::is_never_captured);
        if !(looked_up && place < captured) {
            names.meanings.push((parameter.clone(), Meaning::Bound));
        }
    }
    let Some(body) = block_of(&mut function) else {
        return Shared::new(function);
    };
    names.by_name = evaluates(body.statements());
    names.block(body.statements_mut());
    if names.by_name {
        names.define(body);
    }
    function.into()
}

/// Return the block that a function's body consists of. Rhai does not export the type of the body, `ScriptFuncPayload`.
pub fn block_of(function: &mut ScriptFuncDef) -> Option<&mut StmtBlock> {
    let body = &mut function.body;
    let is_block =
        size_of_val(body) == size_of::<StmtBlock>() && align_of_val(body) == align_of::<StmtBlock>();
    // SAFETY: the body is an enum whose only variant has one field, a `StmtBlock`. As both have the same size, the field
    // begins where the enum does, and nothing else is there. The version of Rhai is pinned.
    is_block.then(|| unsafe { &mut *std::ptr::from_mut(body).cast::<StmtBlock>() })
}
