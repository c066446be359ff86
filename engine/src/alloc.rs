//! An allocator that counts, thread by thread, so that a script's memory can be bounded.
//!
//! Rhai's own size limits measure the whole value after each change, which is quadratic; a counter costs
//! a few percent.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::guard;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// Not inlined: that would put the counting into four thousand places, and leave less room for inlining Rhai's evaluator.
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        guard::allocated(layout.size());
        unsafe { System.alloc(layout) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        guard::allocated(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        guard::freed(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        guard::freed(layout.size());
        guard::allocated(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}
