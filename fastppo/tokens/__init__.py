"""PPO on a language model's tokens: a small GPT, or a local Hugging Face model, and three tasks."""
