//! An allocator that counts, thread by thread, so that a script's memory can be bounded.
//!
//! Rhai's own size limits measure the whole value after each change, which is quadratic; a counter costs a few percent.
//! Small blocks earn them back: each thread that evaluates keeps some of those that it frees, for its next allocations. The
//! system keeps some too, but has to find out their size, which Rust's allocator interface states.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::bounds::meter;

/// Sizes of kept blocks: 24 bytes and then one every 16 bytes, as the system has them. With `MOST_OF_A_SIZE` blocks of each,
/// a thread keeps 74 KB at most.
const SIZES: usize = 17;
const STEP: usize = 16;
const LARGEST: usize = STEP * (SIZES - 1) + 8;
const MOST_OF_A_SIZE: usize = 32;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Blocks of one size, the first `count` of `blocks`.
struct Blocks {
    blocks: [Cell<NonNull<u8>>; MOST_OF_A_SIZE],
    count: Cell<usize>,
}

impl Blocks {
    const fn none() -> Self {
        Self {
            blocks: [const { Cell::new(NonNull::dangling()) }; MOST_OF_A_SIZE],
            count: Cell::new(0),
        }
    }

    fn take(&self) -> Option<NonNull<u8>> {
        let last = self.count.get().checked_sub(1)?;
        self.count.set(last);
        self.blocks.get(last).map(Cell::get)
    }

    /// Keep a block, if there is a place for it.
    fn put(&self, block: NonNull<u8>) -> bool {
        let count = self.count.get();
        let place = self.blocks.get(count);
        if let Some(place) = place {
            place.set(block);
            self.count.set(count + 1);
        }
        place.is_some()
    }
}

/// A thread's blocks by size, and whether it keeps freed ones.
struct Kept {
    sizes: [Blocks; SIZES],
    is_keeping: Cell<bool>,
}

/// Gives a thread's blocks back when it ends.
struct AtEnd;

thread_local! {
    // Constant and without a destructor: the thread may still allocate and free after `AT_END` is dropped.
    static KEPT: Kept = const { Kept { sizes: [const { Blocks::none() }; SIZES], is_keeping: Cell::new(false) } };
    static AT_END: AtEnd = const { AtEnd };
}

/// Let this thread keep blocks until it ends.
pub fn keep_blocks() {
    AT_END.with(|_| KEPT.with(|kept| kept.is_keeping.set(true)));
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        KEPT.with(|kept| {
            kept.is_keeping.set(false);
            for (index, size) in kept.sizes.iter().enumerate() {
                while let Some(block) = size.take() {
                    // SAFETY: it was allocated with that layout (sizes 0 and 1 share one), and nobody else has it.
                    unsafe { System.dealloc(block.as_ptr(), Small(index).layout()) };
                }
            }
        });
    }
}

/// A size of small blocks: 16 times its index and 8 bytes, at least 24.
#[derive(Clone, Copy, PartialEq)]
struct Small(usize);

impl Small {
    /// The size of the blocks for a layout, if it is small.
    #[inline(always)]
    fn holding(layout: Layout) -> Option<Self> {
        let is_small = layout.size() <= LARGEST && layout.align() <= STEP;
        is_small.then(|| Self((layout.size() + 7) / STEP))
    }

    fn layout(self) -> Layout {
        // SAFETY: the alignment is a power of two, and the size at most `LARGEST`. It need not be a multiple of the alignment.
        unsafe { Layout::from_size_align_unchecked(STEP * self.0.max(1) + 8, STEP) }
    }

    /// Take a block that this thread keeps.
    #[inline(always)]
    fn take(self) -> Option<NonNull<u8>> {
        KEPT.with(|kept| kept.sizes.get(self.0).and_then(Blocks::take))
    }

    /// Keep a block, if this thread does and has a place for it.
    #[inline(always)]
    fn put(self, block: NonNull<u8>) -> bool {
        KEPT.with(|kept| kept.is_keeping.get() && kept.sizes.get(self.0).is_some_and(|size| size.put(block)))
    }
}

/// The layout to ask the system for: blocks of a small size are interchangeable.
fn asked(layout: Layout) -> Layout {
    Small::holding(layout).map_or(layout, Small::layout)
}

/// Allocate by the system. It is a function of its own because the usual case, a kept block, needs fewer registers.
///
/// # Safety
///
/// As for `GlobalAlloc::alloc`: the layout's size is not zero.
#[inline(never)]
unsafe fn allocate(layout: Layout) -> *mut u8 {
    // SAFETY: `asked` never makes a layout smaller.
    let block = unsafe { System.alloc(asked(layout)) };
    counted(block, layout.size())
}

/// Count a block that the system gave; if it refused, there is nothing to count.
#[inline(always)]
fn counted(block: *mut u8, size: usize) -> *mut u8 {
    if !block.is_null() {
        meter::allocated(size);
    }
    block
}

// Not inlined: that would put the counting into four thousand places, and leave less room for inlining Rhai's evaluator.
// SAFETY: each block is one that the system allocated with `asked(layout)`, or a kept one, which was. `asked` depends on
// the layout alone, and a request to free names the layout of the request to allocate; so the system gets each block back
// with the layout that it was allocated with, on whatever thread.
unsafe impl GlobalAlloc for Counting {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = Small::holding(layout).and_then(Small::take) else {
            // SAFETY: the caller promises it.
            return unsafe { allocate(layout) };
        };
        meter::allocated(layout.size());
        block.as_ptr()
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises that the size is not zero, and `asked` never makes a layout smaller. Kept blocks, which
        // are not zeroed, are not used.
        let block = unsafe { System.alloc_zeroed(asked(layout)) };
        counted(block, layout.size())
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        meter::freed(layout.size());
        // SAFETY: no block is at null.
        let block = unsafe { NonNull::new_unchecked(pointer) };
        if !Small::holding(layout).is_some_and(|small| small.put(block)) {
            // SAFETY: the block was allocated with this layout, as the `impl` says, and nobody keeps it.
            unsafe { System.dealloc(pointer, asked(layout)) }
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that such a layout can be.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (from, to) = (Small::holding(layout), Small::holding(wanted));
        if from == to {
            let block = match from {
                Some(_) => pointer,
                // SAFETY: both sizes are large, so that `asked(layout)` is the layout itself.
                None => unsafe { System.realloc(pointer, layout, size) },
            };
            if !block.is_null() {
                meter::freed(layout.size());
                meter::allocated(size);
            }
            return block;
        }
        // Not by the system: it would take the block from those that are kept of its size, for good.
        // SAFETY: the caller promises that the size is not zero, and that this allocator made the block, with this
        // layout. Both blocks have as many bytes as are copied, and are not the same. If there is no new one, the old one
        // stays as it is.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}
