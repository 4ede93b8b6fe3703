"""Attribution by gradients: saliency, integrated gradients, SmoothGrad, guided backpropagation, deconvnet."""
