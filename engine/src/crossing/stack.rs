//! The engine's stack: each thread has one, beside its own.
//!
//! Rhai frees values recursively, and writes their text recursively. A thread's usual stack holds a fraction of the depth
//! that the memory limit allows, and its overflow ends the process. So scripts run on a stack whose size follows from that
//! limit, on any thread; it is reserved, and little of it is used. Python code runs on the thread's own stack, because
//! Python may check its addresses.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rhai::{AST, Dynamic, EvalAltResult, FnPtr, Map, Scope};

const MIB: usize = 1024 * 1024;
/// Four times the memory limit were enough stack to free the longest chain within it; three were not.
const STACK_TO_MEMORY: usize = 4;
/// For the library's own frames and for nested evaluations; calls and expressions come on top.
const BASE: usize = 32 * MIB;
/// The part of it that outer evaluations may have used when a host function starts a nested one.
const SLACK: usize = 24 * MIB;
/// Bytes of stack for scripts without a memory limit.
const UNBOUNDED: usize = 1024 * MIB;
/// Bytes left alone at each switch, for the frames between the reading of the stack pointer and the switch. They hold the
/// body and its result about three times.
const GAP: usize = 4 * 1024;
/// The most bytes of a body and its result.
const LARGEST_BODY: usize = GAP / 4;
/// The size of the guard, and the unit of stack sizes; no page is larger.
const PAGES: usize = 64 * 1024;

/// The size of the largest stack so far.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Bytes of stack for scripts with this memory limit.
pub fn size_for(max_memory: usize) -> usize {
    match max_memory {
        0 => UNBOUNDED,
        bytes => bytes.saturating_mul(STACK_TO_MEMORY).saturating_add(BASE),
    }
}

/// The system refused a stack or its guard.
pub struct NoStack(pub io::Error);

impl NoStack {
    fn too_large() -> Self {
        Self(io::Error::from_raw_os_error(libc::ENOMEM))
    }

    fn refused() -> Self {
        Self(io::Error::last_os_error())
    }
}

struct Stack {
    low: NonNull<u8>,
    size: usize,
    /// The end of the free part: the upper end of the stack, or an address below the frames that are on it.
    free: *mut u8,
}

impl Stack {
    fn new(size: usize) -> Result<Self, NoStack> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let size = size
            .checked_next_multiple_of(PAGES)
            .filter(|&size| size > PAGES)
            .ok_or_else(NoStack::too_large)?;
        // SAFETY: a new mapping at an address of the system's choice touches no other memory.
        let low = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if low == libc::MAP_FAILED {
            return Err(NoStack::refused());
        }
        let low = NonNull::new(low.cast::<u8>()).ok_or_else(NoStack::too_large)?;
        let stack = Self {
            low,
            size,
            free: low.as_ptr().wrapping_add(size),
        };
        // SAFETY: this process made the mapping, which is larger than this part of it, and not in use.
        if unsafe { libc::mprotect(low.as_ptr().cast(), PAGES, libc::PROT_NONE) } != 0 {
            return Err(NoStack::refused()); // without a guard, an overflow would write into what lies below
        }
        // Scripts touch little of the stack: huge pages would waste memory. A kernel without them refuses, which is fine.
        // SAFETY: this process made the mapping, of that size, and the advice changes no contents.
        unsafe { libc::madvise(low.as_ptr().cast(), size, libc::MADV_NOHUGEPAGE) };
        LARGEST.fetch_max(size, Ordering::Relaxed);
        Ok(stack)
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
        // SAFETY: nothing runs on it: its thread ends, or it was replaced while it was not in use, or it never was used.
        unsafe {
            libc::munmap(self.low.as_ptr().cast(), self.size);
        }
    }
}

thread_local! {
    // Dropped at the end of the thread: a `DropOnBigStack` in another thread-local value could come too late. There is none.
    static ENGINES: RefCell<Option<Stack>> = const { RefCell::new(None) };
    /// The end of the free part of the thread's own stack while the engine's is in use; else null.
    static THREADS: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Run on the engine's stack, with about `size` bytes of it at least.
pub fn on_engines<T>(size: usize, body: impl FnOnce() -> T) -> Result<T, NoStack> {
    Ok(StackChoice::find(size)?.run(body))
}

/// Run on a stack that is large enough for any value that scripts have built so far.
pub fn roomy<T>(body: impl FnOnce() -> T) -> T {
    match StackChoice::find(LARGEST.load(Ordering::Relaxed)) {
        Ok(place) => place.run(body),
        Err(NoStack(_)) => body(), // no script has run yet, or this stack has to do
    }
}

/// The stack to run a body on.
enum StackChoice {
    /// The current one, which is the engine's.
    Current,
    /// The free part of the engine's stack. `outer` is the stack that this one replaces for the time.
    Engines {
        outer: Option<Stack>,
        low: *mut u8,
        free: *mut u8,
    },
}

impl StackChoice {
    fn find(size: usize) -> Result<Self, NoStack> {
        if !THREADS.get().is_null() {
            return Ok(Self::Current);
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
    if set_free(free) != used {
        // Another evaluation is unfinished below this one's frames: to go back would write over its frames, and there is
        // no other place to go.
        eprintln!("rhai_tasks: a thread came back to a script while another one on its stack had not ended");
        process::abort();
    }
    THREADS.set(high);
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// A value that may nest deeply, so that freeing it may take a large stack.
pub trait MayNestDeeply: Send {
    /// Whether it surely does not.
    fn is_flat(&self) -> bool {
        false
    }
}

impl MayNestDeeply for Box<EvalAltResult> {}

impl MayNestDeeply for FnPtr {
    fn is_flat(&self) -> bool {
        !self.is_curried()
    }
}

impl MayNestDeeply for Scope<'static> {
    fn is_flat(&self) -> bool {
        self.is_empty()
    }
}

impl MayNestDeeply for Vec<(String, Dynamic)> {
    fn is_flat(&self) -> bool {
        self.iter().all(|(_, value)| value.is_flat())
    }
}

impl MayNestDeeply for Vec<Dynamic> {
    fn is_flat(&self) -> bool {
        self.iter().all(MayNestDeeply::is_flat)
    }
}

impl MayNestDeeply for Map {
    fn is_flat(&self) -> bool {
        self.values().all(MayNestDeeply::is_flat)
    }
}

/// Its expressions and the constants in them may nest. Only the last owner frees them.
impl MayNestDeeply for Arc<AST> {
    fn is_flat(&self) -> bool {
        Arc::strong_count(self) > 1
    }
}

impl<T: MayNestDeeply> MayNestDeeply for Option<T> {
    fn is_flat(&self) -> bool {
        self.as_ref().is_none_or(MayNestDeeply::is_flat)
    }
}

impl MayNestDeeply for Dynamic {
    fn is_flat(&self) -> bool {
        self.is_unit() || self.is_int() || self.is_string() || self.is_bool() || self.is_float()
    }
}

/// A value that a script has built. It is freed on the engine's stack, wherever it is dropped.
#[derive(Default)]
pub struct DropOnBigStack<T: MayNestDeeply>(ManuallyDrop<T>);

impl<T: MayNestDeeply> DropOnBigStack<T> {
    pub const fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T: MayNestDeeply> Deref for DropOnBigStack<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: MayNestDeeply> DerefMut for DropOnBigStack<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: MayNestDeeply> Drop for DropOnBigStack<T> {
    fn drop(&mut self) {
        let value = &mut self.0;
        let size = LARGEST.load(Ordering::Relaxed);
        // Before the first script, no value nests.
        if value.is_flat() || size == 0 {
            // SAFETY: the value is not used again: this is its owner's drop.
            return unsafe { ManuallyDrop::drop(value) };
        }
        // If there is no such stack, the value is never freed: on a small one, that could end the process.
        let _ = on_engines(size, || {
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(value) }
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

impl<T: MayNestDeeply + Default> DropOnBigStack<T> {
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
            // SAFETY: this part of the mapping is free, above its guard and below all frames: nobody reads it again.
            unsafe {
                libc::madvise(low.cast(), unused, libc::MADV_DONTNEED);
            }
        }
    });
}

/// Find or make an engine's stack with enough room. Return its lower end and the end of its free part, and before them
/// the stack that it replaces, if that one is in use.
fn reserve(size: usize) -> Result<(Option<Stack>, *mut u8, *mut u8), NoStack> {
    ENGINES.with_borrow_mut(|stack| {
        let mut outer = None;
        if stack
            .as_ref()
            .is_none_or(|stack| stack.room() < size.saturating_sub(SLACK))
        {
            outer = stack.replace(Stack::new(size)?).filter(Stack::is_in_use);
        }
        let stack = stack.as_ref().ok_or_else(NoStack::too_large)?;
        Ok((outer, stack.low.as_ptr(), stack.free))
    })
}

/// Set the end of the free part of the engine's stack, and return the former one.
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

/// Run a body with the stack pointer at `high`.
fn switch<T, F: FnOnce() -> T>(low: *mut u8, high: *mut u8, body: F) -> thread::Result<T> {
    const {
        // The frames of this function and the next hold them within `GAP`.
        assert!(size_of::<F>() + size_of::<thread::Result<T>>() <= LARGEST_BODY);
    }
    let size = high as usize - low as usize;
    // SAFETY: the memory from `low` to `high` belongs to a stack of this thread and is free: callers pass the free part of
    // the engine's stack, or the thread's own stack below the frames that are on it. `high` is aligned to 64 bytes. Nothing
    // unwinds out of the closure.
    unsafe { psm::on_stack(low, size, || panic::catch_unwind(AssertUnwindSafe(body))) }
}
