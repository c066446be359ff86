//! Walks through a part of a script, and puts look-ups where it names constants from outside.

use rhai::{ASTFlags, BinaryExpr, Expr, FnCallExpr, Ident, ImmutableString, Position, Stmt, StmtBlock};

use crate::engine::lookup::{self, Constant, Constants, Kind};
use crate::engine::survey::{Survey, closure, is_eval, is_place, key, variable};
use crate::engine::{by_name, switches};

/// What a name means in a part of a script.
#[derive(Clone, Copy, PartialEq)]
pub enum Meaning {
    /// A variable or constant that the optimizer knows.
    Declared,
    /// A constant whose value the optimizer would know.
    Known,
    /// A parameter, or a variable of a loop or of `catch`, of which it does not know.
    Bound,
}

/// Walks through a part of a script, and puts look-ups of constants into it.
pub struct Names<'a> {
    constants: &'a Constants,
    survey: &'a Survey,
    in_function: bool,
    pub meanings: Vec<(ImmutableString, Meaning)>,
    /// Whether the optimizer would replace names here.
    replaces: bool,
    /// Whether an `eval` in this block may have declared variables.
    evaluated: bool,
    /// Whether variables are to be found by name: a place counts from the end of the scope, where the function that calls
    /// `eval` has more variables than Rhai knew.
    pub by_name: bool,
}

impl<'a> Names<'a> {
    pub fn new(constants: &'a Constants, survey: &'a Survey, in_function: bool) -> Self {
        Self {
            constants,
            survey,
            in_function,
            meanings: Vec::new(),
            replaces: true,
            evaluated: false,
            by_name: false,
        }
    }

    fn meaning(&self, name: &str) -> Option<Meaning> {
        let mut meanings = self.meanings.iter().rev();
        meanings
            .find(|(known, _)| known == name)
            .map(|&(_, meaning)| meaning)
    }

    /// Return the constant that a name is to be replaced by, elsewhere than at the head of a chain.
    fn replaced(&self, name: &str) -> Option<&'a Constant> {
        let constant = self.constants.get(name).filter(|_| self.replaces)?;
        let hidden = if constant.is_collection() {
            !self.in_function || self.evaluated || self.meaning(name).is_some()
        } else {
            let mut meanings = self.meanings.iter();
            meanings.any(|(known, meaning)| known == name && *meaning != Meaning::Bound)
        };
        (!hidden).then_some(constant)
    }

    /// Return the constant that a name at the head of a chain is to be replaced by: a function has no such variable.
    fn free(&self, name: &str) -> Option<&'a Constant> {
        let constant = self.constants.get(name)?;
        let is_free = self.in_function && !self.evaluated && self.meaning(name).is_none();
        is_free.then_some(constant)
    }

    /// Return the constant that `global::` and a name stand for, unless the script has one itself.
    fn global(&self, expression: &Expr) -> Option<(ImmutableString, &'a Constant)> {
        let Expr::Variable(variable, ..) = expression else {
            return None;
        };
        let (_, name, namespace, _) = &**variable;
        let is_global = namespace.path.len() == 1 && namespace.root() == "global";
        let constant = self.constants.get(name).filter(|_| is_global)?;
        (!self.survey.constants.contains(name)).then(|| (name.clone(), constant))
    }

    pub fn block(&mut self, statements: &mut [Stmt]) {
        let (length, replaces, evaluated) = (self.meanings.len(), self.replaces, self.evaluated);
        for statement in statements {
            self.statement(statement);
        }
        self.meanings.truncate(length);
        (self.replaces, self.evaluated) = (replaces, evaluated);
    }

    /// Walk through a block in which these names mean something else.
    fn block_with(&mut self, names: impl IntoIterator<Item = ImmutableString>, statements: &mut [Stmt]) {
        let length = self.meanings.len();
        self.meanings
            .extend(names.into_iter().map(|name| (name, Meaning::Bound)));
        self.block(statements);
        self.meanings.truncate(length);
    }

    fn statement(&mut self, statement: &mut Stmt) {
        match statement {
            Stmt::Var(declaration, options, _) => {
                let is_known = options.contains(ASTFlags::CONSTANT) && self.is_known(&declaration.1);
                self.expression(&mut declaration.1, false);
                declaration.2 = declaration.2.filter(|_| !self.by_name);
                let meaning = if is_known {
                    Meaning::Known
                } else {
                    Meaning::Declared
                };
                self.meanings.push((declaration.0.name.clone(), meaning));
            }
            Stmt::Assignment(assignment) => {
                let BinaryExpr { lhs, rhs } = &mut assignment.1;
                match lhs {
                    Expr::Variable(..) | Expr::ThisPtr(..) => self.find_by_name(lhs),
                    Expr::Dot(chain, ..) | Expr::Index(chain, ..) if is_place(&chain.lhs) => {
                        self.find_by_name(&mut chain.lhs);
                        self.expression(&mut chain.rhs, true);
                    }
                    lhs => self.expression(lhs, false),
                }
                self.expression(rhs, false);
                if let Some((name, position)) = self.assigned(&assignment.1.lhs) {
                    let refusal = lookup::refusal(&name, std::mem::take(&mut assignment.1.rhs), position);
                    *statement = refusal.map_or(Stmt::Noop(position), |refusal| Stmt::Expr(refusal.into()));
                }
            }
            Stmt::If(parts, _) => {
                self.expression(&mut parts.expr, false);
                self.block(parts.body.statements_mut());
                self.block(parts.branch.statements_mut());
            }
            Stmt::Switch(parts, _) => {
                self.expression(&mut parts.0, false);
                switches::bound(&mut parts.0);
                for case in &mut parts.1.expressions {
                    self.expression(&mut case.lhs, false);
                    self.expression(&mut case.rhs, false);
                }
            }
            Stmt::While(parts, _) | Stmt::Do(parts, ..) => {
                self.expression(&mut parts.expr, false);
                self.block(parts.body.statements_mut());
            }
            Stmt::For(parts, _) => {
                let (variable, counter, parts) = &mut **parts;
                self.expression(&mut parts.expr, false);
                let names = [Some(&*variable), counter.as_ref()].into_iter().flatten();
                let names: Vec<_> = names.map(|variable| variable.name.clone()).collect();
                self.block_with(names, parts.body.statements_mut());
            }
            Stmt::TryCatch(parts, _) => {
                self.block(parts.body.statements_mut());
                let caught = variable(&parts.expr).cloned();
                self.block_with(caught, parts.branch.statements_mut());
            }
            Stmt::FnCall(call, _) => {
                let replaces = self.replaces;
                self.call(call);
                // The optimizer sees an `eval` that is a statement only when it has gone through what follows.
                self.replaces |= replaces && is_eval(call);
            }
            Stmt::Block(block) => self.block(block.statements_mut()),
            Stmt::Expr(expression) => self.expression(expression, false),
            Stmt::BreakLoop(Some(value), ..) | Stmt::Return(Some(value), ..) => self.expression(value, false),
            Stmt::Import(import, _) => self.expression(&mut import.0, false),
            Stmt::Share(variables) => {
                variables.retain(|(variable, _)| !self.is_not_shared(&variable.name));
                for (_, place) in variables.iter_mut() {
                    *place = place.filter(|_| !self.by_name);
                }
                if variables.is_empty() {
                    *statement = Stmt::Noop(Position::NONE); // Rhai takes the position from the first variable
                }
            }
            _ => {}
        }
    }

    /// Return the map or array, with its place, that an assignment in a function would change. Of a constant of another kind,
    /// Rhai says that there is no such variable.
    fn assigned(&self, target: &Expr) -> Option<(ImmutableString, Position)> {
        let head = match target {
            Expr::Dot(chain, ..) | Expr::Index(chain, ..) => &chain.lhs,
            target => target,
        };
        let name = variable(head)?;
        let is_constant = self.free(name).is_some_and(Constant::is_collection);
        is_constant.then(|| (name.clone(), head.position()))
    }

    /// Whether closures get a copy of a value instead of a variable that they share.
    fn is_not_shared(&self, name: &str) -> bool {
        let is_constant = match self.constants.get(name) {
            Some(constant) if constant.is_collection() => self.meaning(name).is_none(),
            _ => self.replaced(name).is_some(),
        };
        self.replaces && (is_constant || self.meaning(name) == Some(Meaning::Known))
    }

    fn find_by_name(&self, expression: &mut Expr) {
        if let Expr::Variable(variable, place, _) = expression {
            variable.0 = variable.0.filter(|_| !self.by_name);
            *place = place.filter(|_| !self.by_name);
        }
    }

    /// `in_chain`: it is not the first part of a chain.
    fn expression(&mut self, expression: &mut Expr, in_chain: bool) {
        self.find_by_name(expression);
        match expression {
            Expr::Variable(variable, _, position) => {
                let name = &variable.1;
                let is_replaced = if variable.2.is_empty() {
                    self.replaced(name).is_some()
                } else {
                    self.global(&Expr::Variable(variable.clone(), None, *position))
                        .is_some()
                };
                if let Some(found) = is_replaced
                    .then(|| lookup::expression(name, None, *position))
                    .flatten()
                {
                    *expression = found;
                }
            }
            Expr::Dot(..) | Expr::Index(..) => self.chain(expression, in_chain),
            Expr::FnCall(call, _) => self.call(call),
            Expr::MethodCall(call, _) => self.expressions(&mut call.args),
            Expr::Stmt(block) => self.block(block.statements_mut()),
            Expr::InterpolatedString(parts, _) | Expr::Array(parts, _) => self.expressions(parts),
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => self.expressions(parts),
            Expr::Map(parts, _) => parts
                .0
                .iter_mut()
                .for_each(|(_, value)| self.expression(value, false)),
            _ => {}
        }
    }

    fn expressions(&mut self, expressions: &mut [Expr]) {
        for expression in expressions {
            self.expression(expression, false);
        }
    }

    fn call(&mut self, call: &mut FnCallExpr) {
        if is_eval(call) {
            (self.replaces, self.evaluated) = (false, true);
        }
        if closure(call).is_some() {
            for argument in call.args.iter_mut().skip(1) {
                let is_looked_up = variable(argument).is_some_and(|name| {
                    let constant = self.constants.get(name);
                    constant.is_some_and(Constant::is_never_captured)
                });
                if is_looked_up {
                    *argument = Expr::Unit(argument.position());
                }
            }
        }
        self.expressions(&mut call.args);
        by_name::bound(call);
    }

    fn chain(&mut self, expression: &mut Expr, in_chain: bool) {
        if !in_chain {
            self.head(expression);
        }
        let (Expr::Dot(chain, options, _) | Expr::Index(chain, options, _)) = expression else {
            return; // the head and its only property
        };
        let is_whole = options.contains(ASTFlags::BREAK);
        if in_chain || !is_place(&chain.lhs) {
            self.expression(&mut chain.lhs, false);
        } else {
            self.find_by_name(&mut chain.lhs);
        }
        self.expression(&mut chain.rhs, !is_whole);
    }

    /// Replace the first part of a chain, if it is a constant that is not a variable here. Of a map, only the entry is copied
    /// that the chain names next.
    fn head(&mut self, expression: &mut Expr) {
        let (Expr::Dot(chain, options, _) | Expr::Index(chain, options, _)) = expression else {
            return;
        };
        let is_whole = options.contains(ASTFlags::BREAK);
        let position = chain.lhs.position();
        let found = match variable(&chain.lhs) {
            Some(name) => self.free(name).map(|constant| (name.clone(), constant)),
            None => self.global(&chain.lhs),
        };
        let Some((name, constant)) = found else { return };
        let entry = (constant.kind == Kind::Map)
            .then(|| key(&chain.rhs, is_whole))
            .flatten();
        let Some(found) = lookup::expression(&name, entry.clone(), position) else {
            return;
        };
        let Some(entry) = entry else {
            chain.lhs = found;
            return;
        };
        match &mut chain.rhs {
            rest @ (Expr::Dot(..) | Expr::Index(..)) => {
                let mut rest = std::mem::take(rest);
                if let Expr::Dot(chain, ..) | Expr::Index(chain, ..) = &mut rest {
                    chain.lhs = found;
                }
                *expression = rest;
                self.item(expression, &name, entry, position);
            }
            _ => *expression = found,
        }
    }

    /// If a chain begins with an entry of a constant and an index, look the item up instead: the entry may be large.
    fn item(
        &mut self,
        expression: &mut Expr,
        name: &ImmutableString,
        entry: ImmutableString,
        position: Position,
    ) {
        let Expr::Index(chain, options, _) = expression else {
            return;
        };
        if options.contains(ASTFlags::NEGATED) {
            return;
        }
        let is_whole = options.contains(ASTFlags::BREAK);
        let mut rest = std::mem::take(&mut chain.rhs);
        match &mut rest {
            Expr::Dot(chain, ..) | Expr::Index(chain, ..) if !is_whole => {
                let mut index = std::mem::take(&mut chain.lhs);
                self.expression(&mut index, false);
                if let Some(item) = lookup::item(name, entry, index, position) {
                    chain.lhs = item;
                }
                *expression = rest;
            }
            _ => {
                self.expression(&mut rest, false);
                if let Some(item) = lookup::item(name, entry, rest, position) {
                    *expression = item;
                }
            }
        }
    }

    /// Whether the optimizer would know the value of an expression, of whose constants it knows the values.
    fn is_known(&self, expression: &Expr) -> bool {
        match expression {
            Expr::Variable(..) => variable(expression).is_some_and(|name| {
                let is_constant = self
                    .replaced(name)
                    .is_some_and(|constant| !constant.is_collection());
                is_constant || self.replaces && self.meaning(name) == Some(Meaning::Known)
            }),
            Expr::InterpolatedString(parts, _) | Expr::Array(parts, _) => {
                parts.iter().all(|part| self.is_known(part))
            }
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                parts.iter().all(|part| self.is_known(part))
            }
            Expr::Map(parts, _) => parts.0.iter().all(|(_, value)| self.is_known(value)),
            Expr::FnCall(call, _) => {
                // It calls no other operators than the built-in ones, which take no arrays and maps.
                let is_simple = |part: &Expr| {
                    !matches!(part, Expr::Array(..) | Expr::Map(..) | Expr::DynamicConstant(..))
                };
                let mut arguments = call.args.iter();
                call.op_token.is_some() && arguments.all(|part| is_simple(part) && self.is_known(part))
            }
            _ => expression.is_constant(),
        }
    }

    /// Define the constants in a function that calls `eval`, whose text sees only the variables of the function.
    pub fn define(&self, body: &mut StmtBlock) {
        let position = body.position();
        for name in self.constants.keys() {
            let value = lookup::expression(name, None, position);
            if let Some(value) = value.filter(|_| self.meaning(name).is_none()) {
                let constant = Ident {
                    name: name.clone(),
                    pos: Position::NONE,
                };
                let declaration = Stmt::Var((constant, value, None).into(), ASTFlags::CONSTANT, position);
                body.statements_mut().insert(0, declaration);
            }
        }
    }
}
