"""The part of RetReg that needs Slicer: nodes, jobs, panel. docs/architecture.md draws it."""
