//! An allocator that counts, thread by thread, so that a script's memory can be bounded.
//!
//! Rhai's own size limits measure the whole value after each change, which is quadratic; a counter costs
//! a few percent.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::guard;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        guard::allocated(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        guard::allocated(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        guard::allocated(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        guard::allocated(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}
