//! A stack of the engine's own for each thread.
//!
//! What a script has built is freed recursively, as deep as it is linked, and so is its text written: a thread's
//! usual stack holds a fraction of what fits into the memory limit, and its overflow ends the process. So scripts
//! run on a stack that is measured by that limit, on whatever thread; it is only reserved, not used. Python's code
//! goes back to the thread's own stack, since Python may look at the addresses there.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rhai::{AST, Dynamic, EvalAltResult, FnPtr, Map, Scope};

const MIB: usize = 1024 * 1024;
/// The longest chain that fits into a memory limit was freed on four times that much stack, not on three.
const STACK_TO_MEMORY: usize = 4;
/// For the library's own frames, and for evaluations inside of each other; calls and expressions come on top.
const BASE: usize = 32 * MIB;
/// Of that, what enclosing evaluations may have used when a host function begins another one.
const SLACK: usize = 24 * MIB;
/// Where memory has no limit.
const UNBOUNDED: usize = 1024 * MIB;
/// Left alone at each switch, for the few small frames between the reading of the stack pointer and the switch.
const GAP: usize = 4 * 1024;
/// Guards the lower end, and is what sizes are rounded to; no page is larger.
const PAGES: usize = 64 * 1024;

/// The largest stack that any script had.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Bytes of stack for scripts with this memory limit.
pub fn size_for(max_memory: usize) -> usize {
    match max_memory {
        0 => UNBOUNDED,
        bytes => bytes.saturating_mul(STACK_TO_MEMORY).saturating_add(BASE),
    }
}

/// The address space has no room for such a stack.
pub struct NoStack;

struct Stack {
    low: NonNull<u8>,
    size: usize,
    /// Up to where it is free: its upper end, or below what runs on it.
    free: *mut u8,
}

impl Stack {
    fn new(size: usize) -> Result<Self, NoStack> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let size = match size.checked_next_multiple_of(PAGES) {
            Some(rounded) if size > 0 => rounded,
            _ => return Err(NoStack),
        };
        // SAFETY: a new mapping, of which nobody else knows.
        let low = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if low == libc::MAP_FAILED {
            return Err(NoStack);
        }
        // SAFETY: it is of that size. Its lowest part guards what lies below; and little of it will be touched, so
        // that huge pages would be wasted on it.
        unsafe {
            libc::mprotect(low, PAGES, libc::PROT_NONE);
            libc::madvise(low, size, libc::MADV_NOHUGEPAGE);
        }
        let low = NonNull::new(low.cast::<u8>()).ok_or(NoStack)?;
        LARGEST.fetch_max(size, Ordering::Relaxed);
        Ok(Self {
            low,
            size,
            free: low.as_ptr().wrapping_add(size),
        })
    }

    fn is_in_use(&self) -> bool {
        self.free != self.low.as_ptr().wrapping_add(self.size)
    }

    fn room(&self) -> usize {
        self.free as usize - self.low.as_ptr() as usize
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: nothing runs on it: its thread ends, or it was replaced while it was not in use.
        unsafe {
            libc::munmap(self.low.as_ptr().cast(), self.size);
        }
    }
}

thread_local! {
    static ENGINES: RefCell<Option<Stack>> = const { RefCell::new(None) };
    /// Up to where the thread's own stack is free, while the engine's is in use; else null.
    static THREADS: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Run on the engine's stack, with at least `size` bytes of it, or nearly.
pub fn on_engines<T>(size: usize, body: impl FnOnce() -> T) -> Result<T, NoStack> {
    Ok(Place::find(size)?.run(body))
}

/// Run on a stack that is large enough for whatever scripts have built so far.
pub fn roomy<T>(body: impl FnOnce() -> T) -> T {
    match Place::find(LARGEST.load(Ordering::Relaxed)) {
        Ok(place) => place.run(body),
        Err(NoStack) => body(), // none has run yet, or this one has to do
    }
}

/// Where something is to run.
enum Place {
    /// On the engine's stack, and that is where the thread is.
    Here,
    /// On the engine's stack, from its lower end up to where it is free; `outer` has to be back afterwards.
    Engines {
        outer: Option<Stack>,
        low: *mut u8,
        free: *mut u8,
    },
}

impl Place {
    fn find(size: usize) -> Result<Self, NoStack> {
        if !THREADS.get().is_null() {
            return Ok(Self::Here);
        }
        let (outer, low, free) = reserve(size)?;
        Ok(Self::Engines { outer, low, free })
    }

    fn run<T>(self, body: impl FnOnce() -> T) -> T {
        let Self::Engines { outer, low, free } = self else {
            return body();
        };
        THREADS.set(below(psm::stack_pointer()));
        let result = switch(low, free, body);
        THREADS.set(ptr::null_mut());
        if outer.is_some() {
            ENGINES.replace(outer);
        }
        result.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// Run on the thread's own stack.
pub fn on_threads<T>(body: impl FnOnce() -> T) -> T {
    let high = THREADS.replace(ptr::null_mut());
    if high.is_null() {
        return body();
    }
    let used = below(psm::stack_pointer());
    let free = set_free(used);
    let result = switch(high.wrapping_sub(GAP), high, body);
    set_free(free);
    THREADS.set(high);
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// What may be linked deeply.
pub trait Linked: Send {
    /// Whether it surely is not.
    fn is_flat(&self) -> bool {
        false
    }
}

impl Linked for Box<EvalAltResult> {}

impl Linked for FnPtr {
    fn is_flat(&self) -> bool {
        !self.is_curried()
    }
}

impl Linked for Scope<'static> {
    fn is_flat(&self) -> bool {
        self.is_empty()
    }
}

impl Linked for Vec<(String, Dynamic)> {
    fn is_flat(&self) -> bool {
        self.iter().all(|(_, value)| value.is_flat())
    }
}

impl Linked for Vec<Dynamic> {
    fn is_flat(&self) -> bool {
        self.iter().all(Linked::is_flat)
    }
}

impl Linked for Map {
    fn is_flat(&self) -> bool {
        self.values().all(Linked::is_flat)
    }
}

/// Its expressions may be, and constants that became part of it; but who is not its last owner frees nothing.
impl Linked for Arc<AST> {
    fn is_flat(&self) -> bool {
        Arc::strong_count(self) > 1
    }
}

impl Linked for Dynamic {
    fn is_flat(&self) -> bool {
        self.is_unit() || self.is_int() || self.is_string() || self.is_bool() || self.is_float()
    }
}

/// A value that a script has built, to be freed on the engine's stack wherever it is dropped.
pub struct Deep<T: Linked>(ManuallyDrop<T>);

impl<T: Linked> Deep<T> {
    pub const fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T: Linked> Deref for Deep<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Linked> DerefMut for Deep<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Linked> Drop for Deep<T> {
    fn drop(&mut self) {
        let value = &mut self.0;
        let size = LARGEST.load(Ordering::Relaxed);
        // Where no script has run, nothing has been built.
        if value.is_flat() || size == 0 {
            // SAFETY: it is not used again.
            return unsafe { ManuallyDrop::drop(value) };
        }
        // Where there is no room for that stack, the value is better kept for ever than freed on a small one.
        // SAFETY: likewise.
        let _ = on_engines(size, || unsafe {
            ManuallyDrop::drop(value);
        });
    }
}

/// Copy a value on a stack that is large enough for it.
pub fn copy(value: &Dynamic) -> Dynamic {
    if value.is_flat() {
        value.clone()
    } else {
        roomy(|| value.clone())
    }
}

impl<T: Linked + Default> Deep<T> {
    /// Take the value out.
    pub fn take(&mut self) -> T {
        std::mem::take(&mut **self)
    }
}

/// Give back the memory that a deep recursion has used.
pub fn trim() {
    ENGINES.with_borrow(|stack| {
        if let Some(stack) = stack {
            let low = stack.low.as_ptr().wrapping_add(PAGES);
            let unused = (stack.room() & !(PAGES - 1)).saturating_sub(2 * PAGES);
            // SAFETY: there is nothing that lives below the stack pointer.
            unsafe {
                libc::madvise(low.cast(), unused, libc::MADV_DONTNEED);
            }
        }
    });
}

/// Return an engine's stack with enough room: its lower end, up to where it is free, and before them the stack
/// that has to be back afterwards, if this one is another.
fn reserve(size: usize) -> Result<(Option<Stack>, *mut u8, *mut u8), NoStack> {
    ENGINES.with_borrow_mut(|stack| {
        let mut outer = None;
        if stack
            .as_ref()
            .is_none_or(|stack| stack.room() < size.saturating_sub(SLACK))
        {
            outer = stack.replace(Stack::new(size)?).filter(Stack::is_in_use);
        }
        let stack = stack.as_ref().ok_or(NoStack)?;
        Ok((outer, stack.low.as_ptr(), stack.free))
    })
}

/// Note up to where the engine's stack is free, and return up to where it was.
fn set_free(free: *mut u8) -> *mut u8 {
    ENGINES.with_borrow_mut(|stack| {
        stack
            .as_mut()
            .map_or(free, |stack| std::mem::replace(&mut stack.free, free))
    })
}

fn below(pointer: *mut u8) -> *mut u8 {
    pointer.wrapping_sub(GAP).map_addr(|address| address & !63)
}

/// Run with the stack pointer at `high`.
fn switch<T>(low: *mut u8, high: *mut u8, body: impl FnOnce() -> T) -> thread::Result<T> {
    let size = high as usize - low as usize;
    // SAFETY: the callers hand over memory that is a stack's and free, aligned to 64 bytes; and nothing unwinds
    // out of the closure.
    unsafe { psm::on_stack(low, size, || panic::catch_unwind(AssertUnwindSafe(body))) }
}
