package build_test

import _ "github.com/layersim/layersim/sim/store"
