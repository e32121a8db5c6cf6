package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	provisioner             = "lorajob.test/folder"
	wantedFromAnnotation    = "volume.kubernetes.io/storage-provisioner"
	provisionedByAnnotation = "pv.kubernetes.io/provisioned-by"
)

// newProvisionerCommand makes volumes for the claims of storage classes that name `provisioner`: one folder below
// --root each, which every user may write to, with whatever access modes the claim asks for. The controller manager has
// a provisioner of this kind too, but its folders belong to root and cannot be written by containers that may not be root.
func newProvisionerCommand() *cobra.Command {
	var kubeconfig, root string
	command := &cobra.Command{
		Use: "volume-provisioner",
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return folders{client, root}.serve(command.Context())
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how the API server is reached")
	command.Flags().StringVar(&root, "root", "", "folder of the volumes")
	return command
}

type folders struct {
	client kubernetes.Interface
	root   string
}

func (f folders) serve(ctx context.Context) error {
	// what failed is tried again with every resync
	informed := informers.NewSharedInformerFactory(f.client, 30*time.Second)
	core := informed.Core().V1()
	for informer, handle := range map[cache.SharedIndexInformer]func(context.Context, any) error{
		core.PersistentVolumeClaims().Informer(): f.provide,
		core.PersistentVolumes().Informer():      f.reclaim,
	} {
		see := func(object any) {
			if err := handle(ctx, object); err != nil {
				klog.ErrorS(err, "Failed; will be tried again")
			}
		}
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    see,
			UpdateFunc: func(_, object any) { see(object) },
		})
		if err != nil {
			return err
		}
	}
	informed.Start(ctx.Done())
	<-ctx.Done()
	return nil
}

// provide makes the folder and the volume of a claim that waits for one of ours.
func (f folders) provide(ctx context.Context, object any) error {
	claim := object.(*corev1.PersistentVolumeClaim)
	if claim.Spec.VolumeName != "" || claim.Annotations[wantedFromAnnotation] != provisioner {
		return nil
	}
	folder := filepath.Join(f.root, string(claim.UID))
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	// past the umask
	if err := os.Chmod(folder, 0o777); err != nil {
		return err
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "pvc-" + string(claim.UID),
			Annotations: map[string]string{provisionedByAnnotation: provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: *claim.Spec.Resources.Requests.Storage()},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              *claim.Spec.StorageClassName,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: folder},
			},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}
	_, err := f.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("volume of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

// reclaim removes a volume of ours, and its folder, once its claim is gone.
func (f folders) reclaim(ctx context.Context, object any) error {
	volume := object.(*corev1.PersistentVolume)
	if volume.Status.Phase != corev1.VolumeReleased || volume.Annotations[provisionedByAnnotation] != provisioner {
		return nil
	}
	if err := os.RemoveAll(volume.Spec.HostPath.Path); err != nil {
		return err
	}
	err := f.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
