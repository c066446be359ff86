//! An allocator that counts, thread by thread, so that a script's memory can be bounded.
//!
//! Rhai's own size limits measure the whole value after each change, which is quadratic; a counter costs
//! a few percent. Small blocks that are freed earn them back: each thread that evaluates keeps some for what it allocates
//! next. The system keeps some too, but has to find out how large they are, which Rust says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::guard;

/// Sizes of blocks that are kept: 24 bytes, and then one each 16 bytes, which are the system's own sizes and alignment; and
/// how many of each, which makes 74 KB in all.
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

/// A thread's blocks by size, and whether it keeps what it frees.
struct Kept {
    sizes: [Blocks; SIZES],
    is_keeping: Cell<bool>,
}

/// Gives a thread's blocks back when it ends.
struct AtEnd;

thread_local! {
    // Constant and without a destructor: it is there as long as the thread allocates, also after `AT_END` is dropped.
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
                    // SAFETY: it was allocated with that layout, and is nobody's.
                    unsafe { System.dealloc(block.as_ptr(), Small(index).layout()) };
                }
            }
        });
    }
}

/// A size of small blocks, by its index: 16 bytes of it and 8 more, but 24 at least.
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
        // SAFETY: the step is a power of two, and the size far below the largest.
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

/// What to ask the system for.
fn asked(layout: Layout) -> Layout {
    Small::holding(layout).map_or(layout, Small::layout)
}

/// Allocate by the system; apart, since what is usual needs fewer registers.
#[inline(never)]
unsafe fn allocate(layout: Layout) -> *mut u8 {
    guard::allocated(layout.size());
    unsafe { System.alloc(asked(layout)) }
}

// Not inlined: that would put the counting into four thousand places, and leave less room for inlining Rhai's evaluator.
// SAFETY: blocks are the system's, asked for with a layout that follows from that of each call.
unsafe impl GlobalAlloc for Counting {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = Small::holding(layout).and_then(Small::take) else {
            return unsafe { allocate(layout) };
        };
        guard::allocated(layout.size());
        block.as_ptr()
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        guard::allocated(layout.size());
        unsafe { System.alloc_zeroed(asked(layout)) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        guard::freed(layout.size());
        // SAFETY: no block is at null.
        let block = unsafe { NonNull::new_unchecked(pointer) };
        if !Small::holding(layout).is_some_and(|small| small.put(block)) {
            unsafe { System.dealloc(pointer, asked(layout)) }
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that such a layout can be.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (from, to) = (Small::holding(layout), Small::holding(wanted));
        if from == to {
            guard::freed(layout.size());
            guard::allocated(size);
            return match from {
                Some(_) => pointer,
                None => unsafe { System.realloc(pointer, layout, size) },
            };
        }
        // Not by the system: it would take the block from those that are kept of its size, for good.
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
