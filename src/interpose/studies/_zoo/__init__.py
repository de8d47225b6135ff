"""How the models of the zoo are made: one recipe a file, found by its name; `interpose zoo train NAME` follows one."""
