//! The software side, a small KVM: one Backend trait, twins for VMX and SVM, hypercall policies.
