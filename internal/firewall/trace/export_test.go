package trace

// RunWithFlags is Run with other flags of the table, as on an older kernel.
var RunWithFlags = run

// FlagOwner is the flag that older kernels lack.
const FlagOwner = flagOwner
