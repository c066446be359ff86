//! Records where the scripts of a thread spend time and operations, by the marks that `marks` puts into them.

use std::any::TypeId;
use std::cell::RefCell;
use std::ptr;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rhai::{AST, Dynamic, FuncRegistration, INT, Module, NativeCallContext, RhaiFunc, Shared};

use crate::bounds::guard;
use crate::crossing::evaluation::Evaluation;
use crate::engine::marks::{self, NAME};
use crate::engine::request;

/// The most places that a profile tells apart. What a mark would allocate would count as the script's memory, so there is
/// room for all of them from the start.
const MOST_NODES: usize = 16 * 1024;
const MOST_FRAMES: usize = 1024;

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// A script's function: source, name, line. A script itself has no name.
pub type Function = (Option<String>, String, usize);

/// What a mark stands for.
#[derive(Clone, Copy, PartialEq)]
pub enum Role {
    /// A function begins.
    Enter,
    /// A statement begins.
    Statement,
    /// A statement goes on, after a part of it on other lines.
    Rest,
    /// A function ends.
    Leave,
}

/// A mark in a script.
#[derive(Clone, Copy)]
pub struct Mark {
    pub function: usize,
    pub line: usize,
    pub role: Role,
    /// Operations that the mark adds to the script, and operations behind it that the profile must not count either.
    pub operations: u64,
    pub ahead: u64,
}

/// A line of a function, as called from another such place: what is spent there itself, without the functions that it calls.
struct Node {
    parent: Option<usize>,
    /// The node that has the same parent and was found before it.
    sibling: Option<usize>,
    /// The node that was found last of those that have it as their parent.
    child: Option<usize>,
    function: usize,
    line: usize,
    calls: u64,
    hits: u64,
    time: Duration,
    operations: u64,
}

/// A script's function that runs.
struct Frame {
    run: Run,
    level: usize,
    node: usize,
}

/// An evaluation, or one of the modules that it loads.
type Run = (usize, usize);

pub struct Recorder {
    functions: Vec<Function>,
    marks: Vec<Mark>,
    nodes: Vec<Node>,
    /// The node that was found last of those without a parent.
    root: Option<usize>,
    frames: Vec<Frame>,
    /// The last mark: when, and the operations up to it.
    since: Instant,
    operations: u64,
    is_complete: bool,
}

/// A node as Python gets it: the parent's place among the nodes, or its own if it has none; function, line, calls, hits,
/// nanoseconds, operations.
type Row = [u64; 7];

impl Recorder {
    fn new() -> Self {
        Self {
            functions: Vec::new(),
            marks: Vec::new(),
            nodes: Vec::with_capacity(MOST_NODES),
            root: None,
            frames: Vec::with_capacity(MOST_FRAMES),
            since: Instant::now(),
            operations: 0,
            is_complete: true,
        }
    }

    pub fn add_function(&mut self, function: Function) -> usize {
        self.functions.push(function);
        self.functions.len() - 1
    }

    pub fn add_mark(&mut self, mark: Mark) -> usize {
        self.marks.push(mark);
        self.marks.len() - 1
    }

    fn reach(&mut self, mark: usize, level: usize) {
        let Some(&mark) = self.marks.get(mark) else { return };
        let operations = guard::operations().saturating_sub(mark.operations);
        self.spend(operations);
        self.operations = operations;
        guard::uncount(mark.operations + mark.ahead);
        self.go_to(mark, run(), level);
        self.since = Instant::now();
    }

    /// Add time and operations since the last mark to the place of that mark.
    fn spend(&mut self, operations: u64) {
        let node = self
            .frames
            .last()
            .and_then(|frame| self.nodes.get_mut(frame.node));
        if let Some(node) = node {
            node.time += self.since.elapsed();
            node.operations += operations.saturating_sub(self.operations);
        }
    }

    /// Leave the functions that have ended, some of them by an error, and go to the place of a mark.
    fn go_to(&mut self, mark: Mark, run: Run, level: usize) {
        if let Some(last) = self.frames.iter().rposition(|frame| frame.run == run) {
            self.frames.truncate(last + 1);
        }
        while self
            .frames
            .last()
            .is_some_and(|frame| frame.run == run && frame.level >= level)
        {
            self.frames.pop();
        }
        if mark.role == Role::Leave {
            return;
        }
        let parent = self.frames.last().map(|frame| frame.node);
        let Some(node) = self.node(parent, mark) else {
            self.is_complete = false; // what is spent here counts as the caller's
            return;
        };
        self.frames.push(Frame { run, level, node });
        if let Some(node) = self.nodes.get_mut(node) {
            node.calls += u64::from(mark.role == Role::Enter);
            node.hits += u64::from(mark.role == Role::Statement);
        }
    }

    /// Find or make a node; `None`: there is no room.
    fn node(&mut self, parent: Option<usize>, mark: Mark) -> Option<usize> {
        let Mark { function, line, .. } = mark;
        let last = parent.map_or(self.root, |parent| self.nodes.get(parent)?.child);
        let mut next = last;
        while let Some(place) = next {
            let node = self.nodes.get(place)?;
            if (node.function, node.line) == (function, line) {
                return next;
            }
            next = node.sibling;
        }
        let place = self.nodes.len();
        if place == MOST_NODES {
            return None;
        }
        match parent {
            Some(parent) => self.nodes.get_mut(parent)?.child = Some(place),
            None => self.root = Some(place),
        }
        self.nodes.push(Node {
            parent,
            sibling: last,
            child: None,
            function,
            line,
            calls: 0,
            hits: 0,
            time: Duration::ZERO,
            operations: 0,
        });
        Some(place)
    }

    fn rows(&self) -> Vec<Row> {
        let nodes = self.nodes.iter().enumerate();
        let row = |(place, node): (usize, &Node)| {
            [
                node.parent.unwrap_or(place) as u64,
                node.function as u64,
                node.line as u64,
                node.calls,
                node.hits,
                node.time.as_nanos() as u64,
                node.operations,
            ]
        };
        nodes.map(row).collect()
    }
}

/// Return the evaluation and the number of modules that it is loading: a nested evaluation, and a module while it loads,
/// count levels of calls from 0.
fn run() -> Run {
    let run = |evaluation: &Evaluation<'_>| {
        (
            ptr::from_ref(evaluation).addr(),
            evaluation.loading.borrow().len(),
        )
    };
    Evaluation::with(run).unwrap_or_default()
}

/// Put marks into a script, if this thread records.
pub fn marked(ast: AST, source: Option<&str>) -> AST {
    let marked = |recorder: &mut Option<Recorder>| Some(marks::put(&ast, source, recorder.as_mut()?));
    RECORDER.with_borrow_mut(marked).unwrap_or(ast)
}

/// Record time and operations of the scripts that this thread compiles from now on, until `end_profile`.
#[pyfunction]
pub fn begin_profile() {
    RECORDER.set(Some(Recorder::new()));
}

/// Return the recorded functions and nodes, and whether there was room for all nodes.
#[pyfunction]
pub fn end_profile() -> (Vec<Function>, Vec<Row>, bool) {
    let Some(mut recorder) = RECORDER.take() else {
        return (Vec::new(), Vec::new(), true);
    };
    let (operations, _) = request::last_use();
    recorder.spend(operations);
    let rows = recorder.rows();
    (recorder.functions, rows, recorder.is_complete)
}

/// Add the function of marks to Rhai's library: with a mark; with a value and a mark, which returns the value.
pub fn add_to(library: &mut Module) {
    let (any, mark) = (TypeId::of::<Dynamic>(), TypeId::of::<INT>());
    for parameters in [&[mark][..], &[any, mark]] {
        let function = RhaiFunc::Pure {
            func: Shared::new(
                |context: Option<NativeCallContext<'_>>, arguments: &mut [&mut Dynamic]| {
                    let mark = arguments.last().and_then(|mark| mark.as_int().ok());
                    let mark = mark.and_then(|mark| usize::try_from(mark).ok());
                    if let (Some(mark), Some(context)) = (mark, context) {
                        RECORDER.with_borrow_mut(|recorder| {
                            if let Some(recorder) = recorder {
                                recorder.reach(mark, context.call_level());
                            }
                        });
                    }
                    Ok(match arguments {
                        [value, _] => std::mem::take(*value),
                        _ => Dynamic::UNIT,
                    })
                },
            ),
            has_context: true,
            is_pure: true,
            is_volatile: true,
        };
        FuncRegistration::new(NAME)
            .in_global_namespace()
            .set_into_module_raw(library, parameters, function);
    }
}
