package compare

import "github.com/layersim/layersim/sim/history"

// Pairs returns effects of a rule, each with its nearest cause, in different records.
func Pairs(h *history.History, r Rule) [][2]Milestone {
	list := Milestones(h)
	c := newCauses(list)
	var found [][2]Milestone
	for n := range list {
		if list[n].what != r.Effect {
			continue
		}
		if _, cause, _ := c.before(r, &list[n]); cause != nil && cause.Seq < list[n].Seq {
			found = append(found, [2]Milestone{*cause, list[n]})
		}
	}
	return found
}
