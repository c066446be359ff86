//! Lists the names that a script uses, with their places, for checks before it runs.

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, ScriptFuncDef, Stmt};

use crate::engine::constants::block_of;
use crate::engine::survey::is_eval;

/// A use of a name: kind, name, number of arguments, line, column.
pub type Mention = (&'static str, String, usize, Option<usize>, Option<usize>);

/// Return the mentions of a script that was compiled without the optimizer.
///
/// Kinds: `call`; `method`, whose arguments include the object; `variable` that is declared nowhere in the script where it
/// stands; `property`, also a key of a map; `module`; `unreachable`, a statement that never runs; and `dynamic`, a construct
/// that may declare variables.
pub fn of(ast: &AST) -> Vec<Mention> {
    let mut mentions = of_block(ast.statements());
    for (.., function) in ast.shared_lib().iter_script_fn_info() {
        let mut function = ScriptFuncDef::clone(function);
        let parameters = std::mem::take(&mut function.params);
        let Some(body) = block_of(&mut function) else {
            continue;
        };
        // What a closure captures became a parameter after Rhai had read the body.
        let found = of_block(body.statements()).into_iter();
        mentions.extend(found.filter(|(kind, name, ..)| {
            !(*kind == "variable" && parameters.iter().any(|parameter| parameter == name))
        }));
    }
    mentions
}

fn of_block(statements: &[Stmt]) -> Vec<Mention> {
    let mut mentions = Vec::new();
    for statement in statements {
        statement.walk(&mut Vec::new(), &mut |path| read(&mut mentions, path));
    }
    unreachable(&mut mentions, statements);
    mentions
}

fn add(mentions: &mut Vec<Mention>, kind: &'static str, name: &str, arguments: usize, at: Position) {
    mentions.push((kind, name.into(), arguments, at.line(), at.position()));
}

fn read(mentions: &mut Vec<Mention>, path: &[ASTNode<'_>]) -> bool {
    match path.last() {
        Some(ASTNode::Stmt(statement)) => read_statement(mentions, statement),
        Some(ASTNode::Expr(expression)) => read_expression(mentions, expression),
        _ => {}
    }
    true
}

fn read_statement(mentions: &mut Vec<Mention>, statement: &Stmt) {
    match statement {
        Stmt::FnCall(call, at) => read_call(mentions, call, "call", 0, *at),
        Stmt::Import(import, at) => add(mentions, "module", &import.1.name, 0, *at),
        Stmt::If(parts, _) | Stmt::TryCatch(parts, _) => {
            unreachable(mentions, parts.body.statements());
            unreachable(mentions, parts.branch.statements());
        }
        Stmt::While(parts, _) | Stmt::Do(parts, ..) => unreachable(mentions, parts.body.statements()),
        Stmt::For(parts, _) => unreachable(mentions, parts.2.body.statements()),
        Stmt::Block(block) => unreachable(mentions, block.statements()),
        // Rhai does not walk into it.
        Stmt::BreakLoop(Some(value), ..) => {
            value.walk(&mut Vec::new(), &mut |path| read(mentions, path));
        }
        _ => {}
    }
}

fn read_expression(mentions: &mut Vec<Mention>, expression: &Expr) {
    match expression {
        Expr::Variable(variable, None, at) if variable.2.is_empty() && variable.0.is_none() => {
            add(mentions, "variable", &variable.1, 0, *at);
        }
        Expr::FnCall(call, at) => read_call(mentions, call, "call", 0, *at),
        Expr::MethodCall(call, at) => read_call(mentions, call, "method", 1, *at),
        Expr::Property(property, at) => add(mentions, "property", &property.2, 0, *at),
        Expr::Map(parts, _) => {
            for (key, _) in &parts.0 {
                add(mentions, "property", &key.name, 0, key.pos);
            }
        }
        Expr::Stmt(block) => unreachable(mentions, block.statements()),
        _ => {}
    }
}

fn read_call(
    mentions: &mut Vec<Mention>,
    call: &FnCallExpr,
    kind: &'static str,
    object: usize,
    at: Position,
) {
    if is_eval(call) || call.capture_parent_scope {
        add(mentions, "dynamic", &call.name, 0, at);
    }
    if call.op_token.is_none() {
        let names = call.namespace.path.iter().map(|part| part.name.as_str());
        let name: Vec<_> = names.chain([call.name.as_str()]).collect();
        add(mentions, kind, &name.join("::"), call.args.len() + object, at);
    }
}

/// Find the statement after one that leaves its block.
fn unreachable(mentions: &mut Vec<Mention>, statements: &[Stmt]) {
    let left = statements
        .iter()
        .position(|statement| matches!(statement, Stmt::Return(..) | Stmt::BreakLoop(..)));
    let after = left.and_then(|place| statements.get(place + 1));
    if let Some(statement) = after.filter(|statement| !statement.is_noop()) {
        add(mentions, "unreachable", "", 0, statement.position());
    }
}
