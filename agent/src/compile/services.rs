//! Services: which endpoints each service port has, for each scope.
