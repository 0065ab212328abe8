"""What the served store holds, and what is asked of it."""

FIRST, SECOND = "nano@step-000001", "nano@step-000002"
QUESTION = [{"role": "user", "content": "Cards: ['A', '3', 'K', '6']"}]
