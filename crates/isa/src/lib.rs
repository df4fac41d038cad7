//! The words of the x86 manuals: registers, descriptors, exceptions, VMX and SVM structures; no state.
