package check

import _ "github.com/layersim/layersim/sim/cluster" // want `imports: a saved history is judged without a cluster`
