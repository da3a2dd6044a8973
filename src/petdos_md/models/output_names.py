"""Names of the outputs of exported models, in the form that metatomic asks for: ``domain::name``.

>>> FEATURES_OUTPUT
'petdos::features'
"""

FEATURES_OUTPUT = "petdos::features"
"""Last-layer features, summed over atoms and edges, and the sum of the cutoff function over edges."""
POSITION_GRADIENT = "petdos::energy_position_gradient"
"""Derivative of the energy of all systems with respect to positions, (atom, xyz), in eV/angstrom: minus the forces."""
STRAIN_GRADIENT = "petdos::energy_strain_gradient"
"""Derivative of the energy with respect to the strain, (system, xyz, xyz), in eV; positions and cells are multiplied by 1 + strain."""

LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT = "mtt::aux::petdos_last_layer_features", "mtt::petdos"
"""What files had that were exported before there was one output for both. The second is still the name of the head in the backbone."""

ENERGY_UNCERTAINTY, ENERGY_ENSEMBLE = "energy_uncertainty", "energy_ensemble"
"""Standard names of metatomic: standard deviation of the energy, and its members, of a system or of each atom, in eV."""
ENERGY_FEATURES_OUTPUT = "mtt::aux::energy_last_layer_features"
