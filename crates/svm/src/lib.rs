//! AMD SVM: the silicon.
