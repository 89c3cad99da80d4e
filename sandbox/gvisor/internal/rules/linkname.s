// An assembly file, though empty, lets the package declare a function without a body.
