//! Processor models as data: CPUID, capabilities and costs.
