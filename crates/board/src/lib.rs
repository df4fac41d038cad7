//! The PC around the processor: devices and image loaders.
