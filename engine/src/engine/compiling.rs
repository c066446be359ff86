//! Compiles sources, also those that Rhai's optimizer would break.

use std::borrow::Cow;

use rhai::{AST, ASTNode, Engine, Expr, OptimizationLevel, ParseError, Scope, Stmt};

/// Compile a source, with the variables in the scope.
///
/// In `const M = #{a: 1}; M.a = 5`, Rhai's optimizer puts the property's value where the assignment needs a place, and then
/// the evaluation panics. Such a script is not optimized: it fails where it assigns, as without constants.
pub fn compile(engine: &mut Engine, scope: &Scope<'_>, source: &str) -> Result<AST, ParseError> {
    let ast = engine.compile_with_scope(scope, source)?;
    if ast.walk(&mut is_sound) {
        return Ok(ast);
    }
    let level = engine.optimization_level();
    engine.set_optimization_level(OptimizationLevel::None);
    let ast = engine.compile_with_scope(scope, source);
    engine.set_optimization_level(level);
    ast
}

/// Whether the optimizer has left a statement as it can run; `path`: the nodes down to it.
fn is_sound(path: &[ASTNode<'_>]) -> bool {
    match path.last() {
        Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => is_place(&assignment.1.lhs),
        // Rhai does not walk into it.
        Some(ASTNode::Stmt(Stmt::BreakLoop(Some(value), ..))) => value.walk(&mut Vec::new(), &mut is_sound),
        _ => true,
    }
}

/// Whether Rhai can assign to an expression.
fn is_place(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::Variable(..) | Expr::ThisPtr(..) | Expr::Index(..) | Expr::Dot(..)
    )
}

/// Remove what only files have before their source: a byte order mark, and `#!` with the command that runs the file, which
/// becomes a comment.
pub fn without_marks(source: &str) -> Cow<'_, str> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    match source.strip_prefix("#!") {
        Some(rest) => format!("//{rest}").into(),
        None => source.into(),
    }
}
