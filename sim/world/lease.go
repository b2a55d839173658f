package world

import (
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/store"
)

// hold writes who leads into the process's Lease; an empty identity releases it. A namespace that isn't there yet is no
// obstacle to leading: a cluster's first process starts before anything exists.
func (p *Process) hold(identity string) error {
	w := p.world
	c := w.Store.Client(store.ClientOptions{Author: p.Name})
	now := metav1.NewMicroTime(w.Clock.Now())
	var lease coordinationv1.Lease
	err := c.Get(w.ctx, client.ObjectKey{Namespace: layering.Namespace, Name: p.Name}, &lease)
	switch {
	case apierrors.IsNotFound(err):
		seconds := int32(LeaseDuration.Seconds())
		err = c.Create(w.ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: p.Name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &identity, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now},
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
	case err == nil:
		transitions := int32(1)
		if lease.Spec.LeaseTransitions != nil {
			transitions = *lease.Spec.LeaseTransitions + 1
		}
		lease.Spec.HolderIdentity, lease.Spec.AcquireTime, lease.Spec.RenewTime, lease.Spec.LeaseTransitions = &identity, &now, &now, &transitions
		err = c.Update(w.ctx, &lease)
	}
	if err != nil {
		return fmt.Errorf("hold lease %s: %w", p.Name, err)
	}
	return nil
}
