"""Attribution by relevance: LRP, deep Taylor decomposition, attention rollout."""
