//! Finds the uses of names in a compiled script.

use std::collections::HashMap;

use rhai::{AST, ASTFlags, ASTNode, Expr, FnCallExpr, ImmutableString, Stmt};

/// What a script as a whole says about names.
#[derive(Default)]
pub struct Survey {
    /// All names of variables, constants and parameters.
    pub names: Vec<ImmutableString>,
    /// Constants of the script, which `global::` finds.
    pub constants: Vec<ImmutableString>,
    /// How many of a closure's parameters are captured; they come first.
    pub captured: HashMap<ImmutableString, usize>,
    /// Whether it calls `eval`.
    pub evaluates: bool,
}

impl Survey {
    pub fn of(ast: &AST) -> Self {
        let mut survey = Self::default();
        ast.walk(&mut |path| survey.read(path));
        for (.., function) in ast.shared_lib().iter_script_fn_info() {
            let captured = survey.captured.get(&function.name).copied().unwrap_or(0);
            survey
                .names
                .extend(function.params.iter().skip(captured).cloned());
        }
        survey
    }

    fn read(&mut self, path: &[ASTNode<'_>]) -> bool {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(declaration, options, _))) => {
                self.names.push(declaration.0.name.clone());
                if options.contains(ASTFlags::CONSTANT) {
                    self.constants.push(declaration.0.name.clone());
                }
            }
            Some(ASTNode::Stmt(Stmt::For(parts, _))) => {
                self.names.push(parts.0.name.clone());
                self.names
                    .extend(parts.1.iter().map(|counter| counter.name.clone()));
            }
            Some(ASTNode::Stmt(Stmt::TryCatch(parts, _))) => {
                self.names.extend(variable(&parts.expr).cloned())
            }
            // Rhai does not walk into it.
            Some(ASTNode::Stmt(Stmt::BreakLoop(Some(value), ..))) => {
                value.walk(&mut Vec::new(), &mut |path| self.read(path));
            }
            Some(ASTNode::Stmt(Stmt::FnCall(call, _)) | ASTNode::Expr(Expr::FnCall(call, _))) => {
                self.evaluates |= is_eval(call);
                if let Some(closure) = closure(call) {
                    self.captured.insert(closure, call.args.len() - 1);
                }
            }
            _ => {}
        }
        true
    }
}

/// Return the name that an expression consists of.
pub fn variable(expression: &Expr) -> Option<&ImmutableString> {
    match expression {
        Expr::Variable(variable, ..) if variable.2.is_empty() => Some(&variable.1),
        _ => None,
    }
}

/// Whether a chain that begins with this expression may change it.
pub fn is_place(expression: &Expr) -> bool {
    matches!(expression, Expr::Variable(..) | Expr::ThisPtr(..))
}

/// Return the literal key that the rest of a chain begins with.
///
/// `is_whole`: the rest is an index, and the chain ends with it.
pub fn key(rest: &Expr, is_whole: bool) -> Option<ImmutableString> {
    match rest {
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) if !is_whole => key(&chain.lhs, true),
        Expr::Property(property, _) => Some(property.2.clone()),
        Expr::StringConstant(text, _) => Some(text.clone()),
        _ => None,
    }
}

pub fn is_eval(call: &FnCallExpr) -> bool {
    call.namespace.is_empty() && call.name == "eval"
}

/// Return the name of the closure for which a call captures variables.
pub fn closure(call: &FnCallExpr) -> Option<ImmutableString> {
    let first = call.args.first().filter(|_| call.name == "curry")?;
    let Expr::DynamicConstant(pointer, _) = first else {
        return None;
    };
    let pointer = pointer.read_lock::<rhai::FnPtr>()?;
    pointer.is_anonymous().then(|| pointer.fn_name().into())
}

pub fn evaluates(statements: &[Stmt]) -> bool {
    let mut survey = Survey::default();
    statements.iter().for_each(|statement| {
        statement.walk(&mut Vec::new(), &mut |path| survey.read(path));
    });
    survey.evaluates
}
