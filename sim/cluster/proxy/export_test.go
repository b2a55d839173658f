package proxy

import "time"

// SetGrace changes how long a write may go on after its caller went away.
func (p *Proxy) SetGrace(d time.Duration) { p.grace = d }
