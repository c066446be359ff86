//! Puts marks into a compiled script that is to be profiled: calls of a function that no script can name.
//!
//! A mark is in front of each statement, at the beginning and the end of each function, and where a statement goes on after
//! a part of it on other lines. So time after a call counts as the caller's. None changes a value, a scope or a position.

use std::sync::LazyLock;

use rhai::{AST, ASTFlags, Expr, FnCallExpr, INT, Module, Position, ScriptFuncDef, Shared, Stmt, StmtBlock};

use crate::engine::constants::block_of;
use crate::engine::lookup;
use crate::engine::profile::{Mark, Recorder, Role};

/// No identifier begins with this sign.
pub const NAME: &str = "$mark";

/// Calls of the function with a mark; with a value and a mark.
static CALLS: LazyLock<[Option<FnCallExpr>; 2]> =
    LazyLock::new(|| ["f(1)", "f(1, 2)"].map(|source| lookup::unnameable(NAME, source)));

/// What a call of the function counts as: itself, each argument, and that it is called.
const OPERATIONS: u64 = 3;

/// Put marks into a script.
pub fn put(ast: &AST, source: Option<&str>, recorder: &mut Recorder) -> AST {
    let functions = ast.shared_lib().iter_script_fn_info();
    let functions = functions
        .map(|(.., function)| marked(function, source, recorder))
        .collect::<Vec<_>>();
    let function = recorder.add_function((source.map(Into::into), String::new(), 1));
    let mut marks = Marks {
        recorder,
        function,
        in_function: false,
    };
    let first = ast.statements().first().map_or(Position::NONE, begin);
    let entry = marks.mark(first, Role::Enter);
    let statements = marks.statements(ast.statements().to_vec());
    let mut marked = AST::new(entry.into_iter().chain(statements), Module::from(functions));
    if let Some(source) = ast.source() {
        marked.set_source(source);
    }
    marked
}

fn marked(
    function: &Shared<ScriptFuncDef>,
    source: Option<&str>,
    recorder: &mut Recorder,
) -> Shared<ScriptFuncDef> {
    let mut function = ScriptFuncDef::clone(function);
    let name = if function.name.starts_with("anon$") {
        "closure".to_owned()
    } else {
        format!("{}({})", function.name, function.params.join(", "))
    };
    let Some(body) = block_of(&mut function).filter(|body| !body.is_empty()) else {
        return function.into(); // Rhai skips an empty one, and so takes no time for it
    };
    let (start, end) = (body.position(), body.end_position());
    let first = body.statements().first().map_or(start, begin);
    let line = start.line().or(first.line()).unwrap_or(0);
    let number = recorder.add_function((source.map(Into::into), name, line));
    let mut marks = Marks {
        recorder,
        function: number,
        in_function: true,
    };
    let Some(entry) = marks.mark(first, Role::Enter) else {
        return function.into();
    };
    let inner = marks.statements(body.statements().to_vec());
    let inner = Expr::Stmt(StmtBlock::new(inner, start, end).into());
    if let Some(exit) = marks.call(Some(inner), first, Role::Leave, OPERATIONS - 1) {
        *body = StmtBlock::new([entry, Stmt::FnCall(exit.into(), start)], start, end);
    }
    function.into()
}

/// Return where a statement begins.
fn begin(statement: &Stmt) -> Position {
    match statement {
        Stmt::Assignment(assignment) => assignment.1.lhs.start_position(),
        statement => statement.position(),
    }
}

/// Puts marks into a part of a script.
struct Marks<'a> {
    recorder: &'a mut Recorder,
    function: usize,
    in_function: bool,
}

impl Marks<'_> {
    fn statements(&mut self, statements: impl IntoIterator<Item = Stmt>) -> Vec<Stmt> {
        let mut marked = Vec::new();
        for mut statement in statements {
            let start = begin(&statement);
            self.statement(&mut statement, start);
            if !matches!(statement, Stmt::Noop(..) | Stmt::Block(..) | Stmt::Share(..)) {
                marked.extend(self.mark(start, Role::Statement));
            }
            marked.push(statement);
        }
        marked
    }

    fn block(&mut self, block: &mut StmtBlock) {
        let statements = std::mem::take(block.statements_mut());
        *block.statements_mut() = self.statements(statements).into_iter().collect();
    }

    /// `start`: where the statement begins.
    fn statement(&mut self, statement: &mut Stmt, start: Position) {
        match statement {
            Stmt::Var(declaration, ..) => self.expression(&mut declaration.1, start),
            Stmt::Assignment(assignment) => {
                self.expression(&mut assignment.1.lhs, start);
                self.expression(&mut assignment.1.rhs, start);
            }
            Stmt::If(parts, _) => {
                self.expression(&mut parts.expr, start);
                self.block(&mut parts.body);
                self.block(&mut parts.branch);
            }
            Stmt::Switch(parts, _) => {
                self.expression(&mut parts.0, start);
                for case in &mut parts.1.expressions {
                    self.expression(&mut case.lhs, start);
                    self.expression(&mut case.rhs, start);
                    self.put_before(&mut case.rhs, Role::Statement);
                }
            }
            Stmt::While(parts, _) | Stmt::Do(parts, ..) => {
                self.expression(&mut parts.expr, start);
                self.put_before(&mut parts.expr, Role::Rest);
                self.block(&mut parts.body);
            }
            Stmt::For(parts, _) => {
                self.expression(&mut parts.2.expr, start);
                self.block(&mut parts.2.body);
                if !parts.2.body.is_empty() {
                    let next = self.mark(start, Role::Rest);
                    parts.2.body.statements_mut().extend(next);
                }
            }
            Stmt::TryCatch(parts, _) => {
                self.block(&mut parts.body);
                self.block(&mut parts.branch);
            }
            Stmt::Return(value, options, _) => {
                if let Some(value) = value {
                    self.expression(value, start);
                }
                if self.in_function && !options.contains(ASTFlags::BREAK) {
                    let operations = OPERATIONS + u64::from(value.is_none());
                    let returned = value.take().map_or(Expr::Unit(start), |value| *value);
                    *value = Some(self.put_behind(returned, start, Role::Leave, operations).into());
                }
            }
            Stmt::FnCall(call, _) => self.expressions(&mut call.args, start),
            Stmt::Block(block) => self.block(block),
            Stmt::Expr(expression) => self.expression(expression, start),
            Stmt::BreakLoop(Some(value), ..) => self.expression(value, start),
            Stmt::Import(import, _) => self.expression(&mut import.0, start),
            _ => {}
        }
    }

    fn expressions(&mut self, expressions: &mut [Expr], start: Position) {
        for expression in expressions {
            self.expression(expression, start);
        }
    }

    fn expression(&mut self, expression: &mut Expr, start: Position) {
        match expression {
            Expr::Stmt(block) if !block.is_empty() => {
                self.block(block);
                *expression = self.put_behind(std::mem::take(expression), start, Role::Rest, OPERATIONS);
            }
            Expr::FnCall(call, _) | Expr::MethodCall(call, _) => self.expressions(&mut call.args, start),
            Expr::Dot(parts, ..) | Expr::Index(parts, ..) => {
                self.expression(&mut parts.lhs, start);
                self.expression(&mut parts.rhs, start);
            }
            Expr::InterpolatedString(parts, _) | Expr::Array(parts, _) => self.expressions(parts, start),
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                self.expressions(parts, start);
            }
            Expr::Map(parts, _) => {
                for (_, value) in &mut parts.0 {
                    self.expression(value, start);
                }
            }
            _ => {}
        }
    }

    /// Return a statement that is a mark.
    fn mark(&mut self, position: Position, role: Role) -> Option<Stmt> {
        let call = self.call(None, position, role, OPERATIONS)?;
        Some(Stmt::FnCall(call.into(), position))
    }

    /// Let an expression reach a mark first. As `??`, it needs no block, which would hide what `eval` declares.
    fn put_before(&mut self, expression: &mut Expr, role: Role) {
        let position = expression.position();
        if expression.is_constant() {
            return; // also the `()` that stands for no condition
        }
        if let Some(call) = self.call(None, expression.start_position(), role, OPERATIONS + 1) {
            let parts = [Expr::FnCall(call.into(), position), std::mem::take(expression)];
            *expression = Expr::Coalesce(Box::new(parts.into_iter().collect()), position);
        }
    }

    /// Let an expression reach a mark when its value is known.
    fn put_behind(&mut self, value: Expr, position: Position, role: Role, operations: u64) -> Expr {
        match self.call(Some(value.clone()), position, role, operations) {
            Some(call) => Expr::FnCall(call.into(), position),
            None => value,
        }
    }

    fn call(
        &mut self,
        value: Option<Expr>,
        position: Position,
        role: Role,
        operations: u64,
    ) -> Option<FnCallExpr> {
        let mut call = CALLS.get(usize::from(value.is_some()))?.clone()?;
        let mark = self.recorder.add_mark(Mark {
            function: self.function,
            line: position.line()?,
            role,
            operations,
            // A function's body becomes a block in the call of the mark at its end. Errors skip that mark.
            ahead: if self.in_function && role == Role::Enter {
                2
            } else {
                0
            },
        });
        let mark = Expr::IntegerConstant(INT::try_from(mark).ok()?, position);
        call.args = value.into_iter().chain([mark]).collect();
        Some(call)
    }
}
