"""The panel of the module, one section a file; knows logic only through what it is given."""
