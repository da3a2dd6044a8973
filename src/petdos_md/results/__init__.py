"""Results for people and programs: tables, files, figures, units. Imports every folder above, none of which imports this one."""
