//! Functions of scripts that outlive an evaluation in its scope: its closures call them.

use std::sync::Arc;

use rhai::AST;

use crate::crossing::stack::{DropOnBigStack, MayNestDeeply};

/// About the bytes of an expression or statement.
const NODE: usize = 100;

/// The functions of all scripts that have used a scope; of functions with the same name and parameters, the latest.
#[derive(Clone)]
pub struct Functions {
    all: Arc<AST>,
    /// The latest script, and that script with all functions.
    latest: Arc<AST>,
    whole: Arc<AST>,
    /// About their size.
    pub bytes: usize,
}

impl MayNestDeeply for Functions {}

impl Functions {
    /// Add a script's functions to others. Runs on the engine's stack.
    pub fn merge(kept: Option<&DropOnBigStack<Self>>, script: &Arc<AST>) -> DropOnBigStack<Self> {
        let whole = kept.map_or_else(|| Arc::clone(script), |kept| Arc::new(kept.all.merge(script)));
        let (all, bytes) = match kept {
            Some(kept) if !script.has_functions() => (Arc::clone(&kept.all), kept.bytes),
            _ => {
                let (all, mut bytes) = (whole.clone_functions_only(), 0);
                all.walk(&mut |_: &[rhai::ASTNode<'_>]| {
                    bytes += NODE;
                    true
                });
                (Arc::new(all), bytes)
            }
        };
        DropOnBigStack::new(Self {
            all,
            latest: Arc::clone(script),
            whole,
            bytes,
        })
    }

    /// Return a script with all functions, if it is the latest.
    pub fn merged_with(&self, script: &Arc<AST>) -> Option<DropOnBigStack<Arc<AST>>> {
        Arc::ptr_eq(&self.latest, script).then(|| self.whole())
    }

    /// Return the latest script with all functions.
    pub fn whole(&self) -> DropOnBigStack<Arc<AST>> {
        DropOnBigStack::new(Arc::clone(&self.whole))
    }
}
